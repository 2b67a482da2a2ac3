#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

/// Units [app, comet] and [broker], with the clock in the test's hand.
struct World {
    core: Core,
    now: Ms,
}

impl World {
    fn new() -> Self {
        Self { core: Core::new(Rules::default(), &[vec![0, 1], vec![2]], &BTreeMap::new()), now: 1_000 }
    }
    fn at(&mut self, now: Ms, e: Event) -> Vec<Effect> {
        self.now = now;
        self.core.step(now, e)
    }
    fn go(&mut self, e: Event) -> Vec<Effect> {
        self.core.step(self.now, e)
    }
    fn start(&mut self, proc: usize) -> Vec<Effect> {
        let pid = 100 + u32::try_from(proc).unwrap();
        assert_eq!(self.go(Event::Started { proc, pid }), vec![]);
        self.go(Event::Ready { proc })
    }
    fn exit(&mut self, proc: usize) -> Vec<Effect> {
        self.go(Event::Exited { proc, how: "exit code 0".into() })
    }
    fn up() -> Self {
        let mut w = Self::new();
        w.go(Event::Begin);
        for p in 0..3 {
            w.start(p);
        }
        w
    }
}

#[test]
fn the_application_listens_before_cometbft_starts_and_the_broker_comes_last() {
    let mut w = World::new();
    assert_eq!(w.go(Event::Begin), vec![Effect::Spawn(0)]);
    w.go(Event::Started { proc: 0, pid: 1 });
    assert_eq!(w.go(Event::Tick), vec![], "nothing starts before the application is ready");
    assert_eq!(w.go(Event::Ready { proc: 0 }), vec![Effect::Spawn(1)]);
    assert_eq!(w.start(1), vec![Effect::Spawn(2)]);
    w.start(2);
    assert!((0..3).all(|p| w.core.show(p).0 == Shown::Up));
}

#[test]
fn a_slow_ledger_does_not_keep_the_broker_down_for_ever() {
    let mut w = World::new();
    w.go(Event::Begin);
    w.go(Event::Started { proc: 0, pid: 1 });
    assert_eq!(w.at(10_999, Event::Tick), vec![]);
    assert_eq!(w.at(11_000, Event::Tick), vec![Effect::Spawn(2)]);
}

#[test]
fn exit_code_zero_is_restarted_and_pauses_double_to_the_limit() {
    let mut w = World::up();
    let mut pauses = Vec::new();
    for _ in 0..8 {
        w.exit(2);
        let died = w.now;
        while w.go(Event::Tick) != vec![Effect::Spawn(2)] {
            w.now += 1;
        }
        pauses.push(w.now - died);
        w.start(2);
    }
    assert_eq!(pauses, [250, 500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
    w.now += 30_000;
    w.exit(2);
    assert_eq!(
        w.at(w.now + 250, Event::Tick),
        vec![Effect::Spawn(2)],
        "thirty good seconds make the pause short again"
    );
}

#[test]
fn application_and_cometbft_die_together_whichever_goes_first() {
    for (dead, other) in [(0, 1), (1, 0)] {
        let mut w = World::up();
        assert_eq!(w.exit(dead), vec![Effect::Kill { proc: other, hard: true }]);
        assert_eq!(w.at(w.now + 5_000, Event::Tick), vec![], "nothing restarts while the other lives");
        w.exit(other);
        assert_eq!(w.at(w.now + 250, Event::Tick), vec![Effect::Spawn(0)]);
        assert_eq!(w.start(0), vec![Effect::Spawn(1)]);
        assert_eq!(w.core.show(2).0, Shown::Up, "the broker is not touched");
    }
}

#[test]
fn a_node_whose_state_differs_is_never_started_again() {
    let mut w = World::up();
    let fx = w.go(Event::Found { proc: 1, finding: Finding::StateDiffers, line: "wrong AppHash".into() });
    assert!(matches!(&fx[..], [Effect::KeepHalted(_), Effect::Alarm(a)] if a.contains("wrong AppHash")), "{fx:?}");
    w.exit(0);
    w.exit(1);
    assert_eq!(w.at(w.now + 3_600_000, Event::Tick), vec![]);
    assert_eq!(w.core.show(1).0, Shown::Halted);
    assert_eq!(w.core.show(2).0, Shown::Up);
}

#[test]
fn a_kept_note_halts_the_unit_from_the_start_but_not_the_others() {
    let halted = BTreeMap::from([(0, "differs".to_owned())]);
    let mut core = Core::new(Rules::default(), &[vec![0, 1], vec![2]], &halted);
    assert_eq!(core.step(0, Event::Begin), vec![Effect::Spawn(2)]);
    assert_eq!(core.halted(), ["differs"]);
}

#[test]
fn consensus_that_stopped_because_its_application_died_is_restarted() {
    let mut w = World::up();
    let found = Event::Found { proc: 1, finding: Finding::ConsensusStopped, line: "EOF".into() };
    assert_eq!(w.go(found.clone()), vec![]);
    w.exit(0);
    w.exit(1);
    assert_eq!(w.at(w.now + 250, Event::Tick), vec![Effect::Spawn(0)]);
    // With nothing dead to explain it, it is an alarm.
    let mut w = World::up();
    w.go(found);
    let fx = w.at(w.now + 5_000, Event::Tick);
    assert!(matches!(&fx[..], [Effect::Alarm(_)]), "{fx:?}");
    assert_eq!(w.core.show(1).0, Shown::Halted);
}

#[test]
fn a_height_frozen_below_its_peers_is_an_alarm_and_no_restart() {
    let heights = |own, peers| Event::Heights { proc: 1, own, peers, catching_up: false };
    let mut w = World::up();
    w.go(heights(7, None));
    assert_eq!(w.at(w.now + 19_999, heights(7, Some(20))), vec![]);
    let fx = w.at(w.now + 1, heights(7, Some(20)));
    assert!(matches!(&fx[..], [Effect::Alarm(a)] if a.contains("stands at 7") && a.contains("20")), "{fx:?}");
    assert_eq!(w.at(w.now + 5_000, heights(7, Some(30))), vec![], "said once");
    w.exit(1);
    assert_eq!(w.at(w.now + 60_000, Event::Tick), vec![], "not restarted blindly");
    assert_eq!(w.core.show(1).0, Shown::Halted);
}

#[test]
fn a_height_that_grows_again_ends_the_alarm() {
    let heights = |own, peers| Event::Heights { proc: 1, own, peers, catching_up: false };
    let mut w = World::up();
    w.go(heights(7, None));
    w.at(w.now + 20_000, heights(7, Some(20)));
    w.at(w.now + 1_000, heights(8, None));
    assert_eq!(w.core.show(1).0, Shown::Up);
    assert_eq!(w.core.halted(), Vec::<String>::new());
}

#[test]
fn an_idle_city_or_one_that_catches_up_is_no_alarm() {
    let mut w = World::up();
    for i in 1..20 {
        let e = Event::Heights { proc: 1, own: 7, peers: Some(8), catching_up: false };
        assert_eq!(w.at(1_000 + i * 10_000, e), vec![]);
    }
    for i in 20..40 {
        let e = Event::Heights { proc: 1, own: 7, peers: Some(5_000), catching_up: true };
        assert_eq!(w.at(1_000 + i * 10_000, e), vec![]);
    }
}

#[test]
fn a_process_that_stops_answering_is_killed_with_its_unit_restarted() {
    let mut w = World::up();
    w.go(Event::Health { proc: 1, ok: false });
    assert_eq!(w.at(w.now + 29_999, Event::Health { proc: 1, ok: false }), vec![]);
    assert_eq!(w.at(w.now + 1, Event::Health { proc: 1, ok: false }), vec![Effect::Kill { proc: 1, hard: true }]);
    assert_eq!(w.exit(1), vec![Effect::Kill { proc: 0, hard: true }]);
}

#[test]
fn stop_goes_backwards_one_by_one_and_ends_with_done() {
    let mut w = World::up();
    let term = |proc| vec![Effect::Kill { proc, hard: false }];
    assert_eq!(w.go(Event::Stop), term(2));
    assert_eq!(w.go(Event::Tick), vec![]);
    assert_eq!(w.exit(2), term(1));
    assert_eq!(w.exit(1), term(0));
    assert_eq!(w.exit(0), vec![Effect::Done]);
    assert_eq!(w.at(w.now + 60_000, Event::Tick), vec![], "and nothing comes back");
}

#[test]
fn a_process_that_ignores_the_stop_delays_no_other_and_is_killed_at_the_deadline() {
    let mut w = World::up();
    w.go(Event::Stop);
    assert_eq!(w.at(w.now + 2_000, Event::Tick), vec![Effect::Kill { proc: 1, hard: false }]);
    w.exit(1);
    w.at(w.now, Event::Tick);
    w.at(w.now + 2_000, Event::Tick);
    w.exit(0);
    assert_eq!(w.at(11_000, Event::Tick), vec![Effect::Kill { proc: 2, hard: true }]);
    assert_eq!(w.exit(2), vec![Effect::Done]);
}

#[test]
fn a_start_that_fails_is_tried_again() {
    let mut w = World::new();
    w.go(Event::Begin);
    w.go(Event::SpawnFailed { proc: 0, why: "no such file".into() });
    assert_eq!(w.core.show(0).3, Some("not started: no such file"));
    assert!(w.at(w.now + 250, Event::Tick).contains(&Effect::Spawn(0)));
}
