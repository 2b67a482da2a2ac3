//! The first full path: agree, query, revoke, be refused.

use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::terms::Status;

use super::kit::City;

#[test]
fn a_query_is_accepted_under_an_active_agreement_and_refused_after_its_revocation() {
    let (mut city, agreement) = City::ready();
    assert_eq!(city.view("AGR-1", 1).status, Status::Active);
    let query = |city: &City, n| city.query(agreement.handles[0], agreement.session, n);
    let op = query(&city, 1);
    assert_eq!(city.say("police/executor", op), (Verdict::Accepted, codes::OK));
    assert_eq!(city.revoke("court", "security"), 0);
    let op = query(&city, 2);
    assert_eq!(city.say("police/executor", op), (Verdict::Refused, codes::REVOKED));
    assert_eq!(city.view("AGR-1", 1).status, Status::Revoked);
}

#[test]
fn a_revocation_in_a_block_precedes_every_read_in_it() {
    use concordat_protocol::acts::ActBody;
    use concordat_protocol::ids::AgreementId;
    let (mut city, agreement) = City::ready();
    let reads = (1..=50).map(|n| city.query(agreement.handles[0], agreement.session, n)).collect();
    let batch = city.batch("police/executor", reads);
    let body = ActBody::Revoke { agreement: AgreementId::new("AGR-1").unwrap(), version: 1, reason: [0; 32] };
    let revoke = city.act("court", "legal", body);
    let before = city.log_size();
    city.mock.submit(batch);
    city.mock.submit(revoke);
    city.tick();
    let log = city.log(before);
    assert_eq!((log.len(), log[0].writer.as_str(), log[0].verdict), (51, "act:court", Verdict::Accepted));
    assert!(log[1..].iter().all(|e| (e.verdict, e.code) == (Verdict::Refused, codes::REVOKED)));
}

#[test]
fn the_app_hash_stays_on_a_block_of_one_tick() {
    let (mut city, _) = City::ready();
    let before = city.mock.app_hash();
    for _ in 0..3 {
        let block = city.tick();
        assert_eq!((block.txs.len(), block.app_hash), (1, before.clone()));
    }
}
