//! Who can read a field: exactly those whom the active agreements let read it, clause by clause.
//!
//! The list is complete and nothing else is in it: an ask is permitted under some clause that shows the field if and only
//! if a [`Reader`] covers it (a property test holds the two against each other). References, quotas, filters and sign-ins
//! that a clause asks for besides are its `conditions`.

use crate::ask::Ask;
use crate::document::{Agreement, Clause, Who, Window};
use crate::duty::{Capabilities, Duty, DutyKind};
use concordat_protocol::ids::{AgencyId, AgreementId, DatasetId};
use concordat_protocol::terms::{Action, Effect};

/// How a field is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// As it is.
    Plain,
    /// Altered, as the sentence says.
    Altered(String),
    /// As the key of groups with at least so many rows.
    GroupKey(u64),
}

/// Whom a prohibition takes away from a reader: all conditions together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unless {
    /// The prohibition, `AGR-2026-0142/X1`.
    pub clause: String,
    /// People of this agency.
    pub org: Option<AgencyId>,
    /// Who (also) have this role.
    pub role: Option<String>,
    /// For this purpose.
    pub purpose: Option<String>,
    /// In this window.
    pub window: Window,
}

/// Some people who can read the field under a clause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    /// The agreement.
    pub agreement: AgreementId,
    /// Its version.
    pub version: u64,
    /// The clause.
    pub clause: String,
    /// The agency; none is any agency (public data).
    pub org: Option<AgencyId>,
    /// The role; none is any.
    pub role: Option<String>,
    /// `query` or `subscribe`.
    pub action: Action,
    /// Only as an override.
    pub break_glass: bool,
    /// The purpose; none is any.
    pub purpose: Option<String>,
    /// When: disjoint, in order, never empty.
    pub windows: Vec<Window>,
    /// But not these.
    pub unless: Vec<Unless>,
    /// How the field is seen.
    pub how: How,
    /// What else must hold, as sentences.
    pub conditions: Vec<String>,
    /// A duty that no executor of this release fulfils: until then nobody reads under this clause.
    pub denied_by: Option<DutyKind>,
}

impl Reader {
    /// Whether an ask is one of these people's.
    pub fn covers(&self, ask: &Ask) -> bool {
        let is = |wanted: &Option<String>, given: &str| wanted.as_deref().is_none_or(|w| w == given);
        self.org.as_ref().is_none_or(|o| *o == ask.consumer)
            && self.role.as_ref().is_none_or(|r| ask.roles.contains(r))
            && self.action == ask.action
            && self.break_glass == ask.break_glass
            && is(&self.purpose, &ask.purpose)
            && self.windows.iter().any(|w| w.contains(ask.at_ms))
            && !self.unless.iter().any(|u| {
                u.org.as_ref().is_none_or(|o| *o == ask.consumer)
                    && u.role.as_ref().is_none_or(|r| ask.roles.contains(r))
                    && is(&u.purpose, &ask.purpose)
                    && u.window.contains(ask.at_ms)
            })
    }
}

/// Everybody who can read a field of a dataset under documents that are all active.
pub fn readers(active: &[&Agreement], dataset: &DatasetId, field: &str, able: &Capabilities) -> Vec<Reader> {
    let here: Vec<&Agreement> = active.iter().filter(|d| d.target == *dataset).copied().collect();
    let clauses = here.iter().flat_map(|d| d.clauses.iter().map(move |c| (*d, c)));
    let shown = clauses.filter(|(_, c)| c.grants()).filter_map(|(d, c)| Some((d, c, how(c, field)?)));
    let each = shown.flat_map(|(d, c, how)| {
        let reads = c.actions.iter().filter(|a| matches!(a, Action::Query | Action::Subscribe));
        reads.map(move |a| (d, c, *a, how.clone())).collect::<Vec<_>>()
    });
    each.filter_map(|(d, c, action, how)| reader(&here, d, c, action, how, able)).collect()
}

/// How a clause shows a field; `None`: not at all.
fn how(c: &Clause, field: &str) -> Option<How> {
    let mut seen = How::Plain;
    for d in &c.duties {
        match d {
            Duty::Fields { allow } if !allow.iter().any(|a| a == field) => return None,
            Duty::Aggregate { group_by, min_group } => {
                if !group_by.iter().any(|g| g.field == field) {
                    return None;
                }
                seen = How::GroupKey(*min_group);
            }
            d if d.altered().contains(&field) => seen = How::Altered(d.sentence()),
            _ => {}
        }
    }
    Some(seen)
}

fn reader(
    here: &[&Agreement],
    doc: &Agreement,
    c: &Clause,
    action: Action,
    how: How,
    able: &Capabilities,
) -> Option<Reader> {
    let (org, role) = match &c.who {
        Who::Any => (None, None),
        Who::Org { org, role } => (Some(org.clone()), role.clone()),
    };
    let mut windows = vec![c.valid];
    let mut unless = Vec::new();
    for other in here {
        for x in other.clauses.iter().filter(|x| !x.grants() && x.actions.contains(&action)) {
            match cut(other, x, org.as_ref(), role.as_deref(), c.purpose.as_deref()) {
                Cut::Nothing => {}
                Cut::Window => windows = without(&windows, x.valid),
                Cut::Some(u) => unless.push(u),
            }
        }
    }
    unless.retain(|u| windows.iter().any(|w| w.from_ms < u.window.until_ms && u.window.from_ms < w.until_ms));
    let told = |d: &&Duty| d.altered().is_empty() && !matches!(d, Duty::Fields { .. } | Duty::Aggregate { .. });
    let reader = Reader {
        agreement: doc.agreement.clone(),
        version: doc.version,
        clause: c.id.clone(),
        org,
        role,
        action,
        break_glass: c.effect == Effect::BreakGlass,
        purpose: c.purpose.clone(),
        windows,
        unless,
        how,
        conditions: c.duties.iter().filter(told).map(Duty::sentence).collect(),
        denied_by: able.first_missing_of(c),
    };
    (!reader.windows.is_empty()).then_some(reader)
}

/// What a prohibition takes from people.
enum Cut {
    Nothing,
    /// Everything in its window.
    Window,
    /// Some of them.
    Some(Unless),
}

fn cut(other: &Agreement, x: &Clause, org: Option<&AgencyId>, role: Option<&str>, purpose: Option<&str>) -> Cut {
    // Whom the prohibition speaks of: its own agency, if it names one, and the agreement's party in any case.
    let (x_org, x_role) = match &x.who {
        Who::Any => (other.assignee.as_ref(), None),
        Who::Org { org, role } => {
            if other.assignee.as_ref().is_some_and(|a| a != org) {
                return Cut::Nothing;
            }
            (Some(org), role.as_deref())
        }
    };
    let differs = |a: Option<&str>, b: Option<&str>| a.is_some() && b.is_some() && a != b;
    if x_org.is_some() && org.is_some() && x_org != org || differs(x.purpose.as_deref(), purpose) {
        return Cut::Nothing;
    }
    let unless = Unless {
        clause: format!("{}/{}", other.agreement, x.id),
        org: x_org.filter(|_| org.is_none()).cloned(),
        role: x_role.filter(|r| role != Some(*r)).map(str::to_owned),
        purpose: x.purpose.clone().filter(|_| purpose.is_none()),
        window: x.valid,
    };
    if unless.org.is_none() && unless.role.is_none() && unless.purpose.is_none() {
        return Cut::Window;
    }
    Cut::Some(unless)
}

/// Windows with one taken out.
pub(crate) fn without(windows: &[Window], gone: Window) -> Vec<Window> {
    let parts = windows.iter().flat_map(|w| {
        let before = Window { from_ms: w.from_ms, until_ms: w.until_ms.min(gone.from_ms) };
        let after = Window { from_ms: w.from_ms.max(gone.until_ms), until_ms: w.until_ms };
        [before, after]
    });
    parts.filter(|w| w.from_ms < w.until_ms).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::demo;

    fn of(field: &str) -> Vec<Reader> {
        let doc = Agreement::parse(&demo("AGR-2026-0142")).unwrap();
        readers(&[&doc], &DatasetId::new("ds:police/stops@1").unwrap(), field, &Capabilities::default())
    }

    #[test]
    fn a_field_is_read_under_the_clauses_that_show_it() {
        let names = |field| of(field).into_iter().map(|r| (r.clause, r.how)).collect::<Vec<_>>();
        let is = |id: &str, how| (id.to_owned(), how);
        assert_eq!(names("time"), [is("C1", How::Plain), is("S1", How::GroupKey(10)), is("B1", How::Plain)]);
        assert_eq!(names("problem"), [is("C1", How::Plain), is("B1", How::Plain)]);
        assert_eq!(names("race"), [is("B1", How::Plain)]);
        let b1 = of("race").remove(0);
        assert!(b1.break_glass && b1.denied_by.is_none());
        assert!(of("time")[0].conditions[0].contains("must name a case"));
    }

    #[test]
    fn taking_a_window_out_leaves_what_is_around_it() {
        let w = |from_ms, until_ms| Window { from_ms, until_ms };
        for (gone, left) in [
            (w(3, 5), vec![w(1, 3), w(5, 9)]),
            (w(0, 1), vec![w(1, 9)]),
            (w(0, 4), vec![w(4, 9)]),
            (w(4, 20), vec![w(1, 4)]),
            (w(1, 9), vec![]),
            (w(9, 10), vec![w(1, 9)]),
        ] {
            assert_eq!(without(&[w(1, 9)], gone), left);
        }
    }
}
