//! Topic filters of MQTT 3.1.1, chapter 4.7, and cells out of topics.

/// Why a filter cannot be subscribed; none when it can.
pub fn filter_fault(filter: &str) -> Option<&'static str> {
    if filter.is_empty() || filter.len() > 65_535 {
        return Some("a filter has 1 to 65535 bytes");
    }
    if filter.contains('\0') {
        return Some("a filter holds no NUL character");
    }
    let levels: Vec<&str> = bare(filter).split('/').collect();
    for (n, level) in levels.iter().enumerate() {
        if level.contains('+') && *level != "+" {
            return Some("`+` stands for a whole level: site/+/meter, not site/a+/meter");
        }
        if level.contains('#') && (*level != "#" || n + 1 != levels.len()) {
            return Some("`#` stands alone as the last level");
        }
    }
    None
}

/// A shared subscription, `$share/group/filter`, matches as its filter does.
fn bare(filter: &str) -> &str {
    filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/')).map_or(filter, |(_, filter)| filter)
}

/// True when a topic falls under a filter.
pub fn matches(filter: &str, topic: &str) -> bool {
    let filter = bare(filter);
    // Topics of the server itself are not under a wildcard.
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for want in filter.split('/') {
        match (want, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (want, Some(level)) if want == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// Levels that every topic under a filter has.
pub fn levels_min(filter: &str) -> usize {
    bare(filter).split('/').filter(|level| *level != "#").count()
}

/// One level of a topic, from 0.
pub fn level(topic: &str, n: usize) -> Option<&str> {
    topic.split('/').nth(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_match_as_the_standard_says() {
        for (filter, topic, want) in [
            ("site/+/meter/+", "site/a/meter/m1", true),
            ("site/+/meter/+", "site/a/meter/m1/x", false),
            ("site/+/meter/+", "site/a/meter", false),
            ("site/#", "site", true),
            ("site/#", "site/a/b", true),
            ("site/#", "sites/a", false),
            ("#", "a/b", true),
            ("#", "$SYS/load", false),
            ("+/load", "$SYS/load", false),
            ("$SYS/#", "$SYS/load", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("$share/g/site/+", "site/a", true),
        ] {
            assert_eq!(matches(filter, topic), want, "{filter} {topic}");
        }
    }

    #[test]
    fn filters_that_a_server_would_refuse_are_named() {
        for good in ["a", "+", "#", "a/+/b/#", "/", "$share/g/a/+"] {
            assert_eq!(filter_fault(good), None, "{good}");
        }
        for bad in ["", "a+", "a/#/b", "a#", "a/b+/c", "a\0"] {
            assert!(filter_fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn levels_count_from_zero() {
        assert_eq!(level("site/a/meter/m1", 3), Some("m1"));
        assert_eq!(level("site/a", 2), None);
        assert_eq!((levels_min("site/+/meter/+"), levels_min("a/#")), (4, 1));
    }
}
