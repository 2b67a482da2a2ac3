//! Role maps: an agency records the hash of its own, number by number, and each stays provable.

use concordat_protocol::acts::ActBody;
use concordat_protocol::cbor;
use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::limits::ROLE_MAPS_PER_DAY;
use concordat_protocol::node::{NodeReply, NodeRequest, RoleMapView, role_map_at};

use super::kit::*;

fn map(number: u64, fill: u8) -> ActBody {
    ActBody::RoleMap { number, sha256: [fill; 32] }
}

fn maps(city: &City, who: &str) -> Vec<RoleMapView> {
    let NodeReply::RoleMaps { body } = city.ask(&NodeRequest::RoleMaps { agency: agency(who) }) else { panic!() };
    body
}

#[test]
fn an_agency_records_its_own_map_number_by_number_and_each_is_provable() {
    let mut city = City::new();
    assert!(maps(&city, "court").is_empty());
    let first = city.log_size();
    assert_eq!(city.do_act("court", "gateway", map(1, 7)), 0);
    assert_eq!(city.do_act("court", "root", map(2, 8)), 0, "the root may as well");
    assert_eq!(city.do_act("police", "gateway", map(1, 8)), 0, "each agency counts for itself");
    let told = maps(&city, "court");
    assert_eq!(told.iter().map(|m| (m.number, m.index)).collect::<Vec<_>>(), [(1, first), (2, first + 1)]);
    assert!(told.iter().all(|m| m.agency == agency("court") && m.height > 0 && m.tick_ms > START));
    assert_eq!(city.log(first)[0].verdict, Verdict::Accepted);
    // Which one was in force: the newest before an operation. The act itself is not under its own map.
    let at = |index| role_map_at(&told, index).map(|m| m.sha256[0]);
    assert_eq!([first, first + 1, first + 2, u64::MAX].map(at), [None, Some(7), Some(8), Some(8)]);
    city.reopen();
    assert_eq!(maps(&city, "court"), told, "they survive a restart");
    city.tick();
    city.tick();
    for row in &told {
        let key = format!("role-map/court/{:010}", row.number);
        let leaf = city.mock.query("/store/meta/key", key, true);
        assert_eq!((leaf.code, &leaf.value[..]), (0, &cbor::encode(row)[..]));
    }
    for absent in ["role-map/court/3", "role-map/court/1", "role-map/grid/0000000001"] {
        assert_ne!(city.mock.query("/store/meta/key", absent.to_owned(), true).code, 0, "{absent}");
    }
}

#[test]
fn a_map_out_of_turn_or_of_another_s_is_refused() {
    let mut city = City::new();
    assert_eq!(city.do_act("court", "gateway", map(1, 7)), 0);
    for (what, body) in [
        ("again under its number", map(1, 7)),
        ("another under a used number", map(1, 8)),
        ("a number left out", map(3, 8)),
        ("the one in force", map(2, 7)),
        ("no number", map(0, 8)),
        ("the last number there is", map(u64::MAX, 8)),
    ] {
        assert_eq!(city.do_act("court", "gateway", body), codes::BAD_VALUE, "{what}");
    }
    // A person's approval key, and another agency's gateway in court's name.
    let by_person = city.act("court", "legal", map(2, 8));
    assert_eq!(city.mock.check(by_person).code, u32::from(codes::WRONG_ROLE));
    let forged = signed_act("court", &key("police", "gateway"), 1, map(2, 8));
    assert_eq!(city.mock.check(forged).code, u32::from(codes::WRONG_AGENCY));
    // An act that was taken does not count twice.
    let act = city.act("court", "gateway", map(2, 8));
    assert_eq!(city.mock.check(act.clone()).code, 0);
    city.tick();
    assert_eq!(city.mock.check(act).code, u32::from(codes::STALE));
    assert_eq!(maps(&city, "court").iter().map(|m| m.number).collect::<Vec<_>>(), [1, 2]);
    assert!(maps(&city, "police").is_empty());
}

#[test]
fn a_day_takes_so_many_maps_of_an_agency_and_the_next_day_as_many_again() {
    let mut city = City::new();
    let most = ROLE_MAPS_PER_DAY as u64;
    for number in 1..=most {
        assert_eq!(city.do_act("court", "gateway", map(number, number as u8)), 0, "{number}");
    }
    assert_eq!(city.do_act("court", "gateway", map(most + 1, 200)), codes::QUOTA);
    assert_eq!(city.do_act("police", "gateway", map(1, 200)), 0, "each agency counts for itself");
    city.clock.advance(DAY);
    city.tick();
    assert_eq!(city.do_act("court", "gateway", map(most + 1, 200)), 0, "the next day");
    assert_eq!(maps(&city, "court").len() as u64, most + 1);
}
