//! Two executors on one holding, over the shipped lease: they ask and are answered later, stop and wake, die and start
//! again, at any step. What a store keeps is numbered, as deliveries are; what leaves is a send.

use concordat_executor::lease::{Bid, Lease, Tenure, admits, decide};
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::collections::BTreeMap;

/// How long a lease is good.
const LEASE: u64 = 5;
/// When the model ends.
const END: u64 = 6;
/// Numbers that are given.
const ITEMS: u64 = 2;

/// What is left out of the shipped rules.
#[derive(Clone, Copy, PartialEq)]
enum Bug {
    None,
    /// Stores do not compare terms.
    Term,
    /// What leaves does not look at the lease.
    Tenure,
    /// A store is read before its term is raised.
    Order,
}

struct Executors(Bug);

#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct Executor {
    /// Lives: each has a name of its own.
    life: u8,
    stopped: bool,
    /// When it asked for the lease; none while no question is on its way.
    asked: Option<u64>,
    tenure: Option<Tenure>,
    /// The store's newest number as it read it; none before.
    last: Option<u64>,
    /// A number that it is about to keep.
    making: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct City {
    now: u64,
    lease: Lease,
    all: [Executor; 2],
    /// The executors' own store: its term, and who made each number (the term of the maker).
    fence: u64,
    items: BTreeMap<u64, u64>,
    /// A number was given twice.
    twice: bool,
    /// Something left an executor while another had the lease.
    late: bool,
    /// A store refused one that was not at work.
    refused: bool,
    troubles: u8,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Do {
    Tick,
    Ask(usize),
    /// The store answers; the answer may be lost.
    Answer(usize, bool),
    /// Raises the store's term.
    Fence(usize),
    /// Reads the store's newest number.
    Read(usize),
    Make(usize),
    Keep(usize),
    Send(usize),
    Stop(usize),
    Wake(usize),
    Die(usize),
}

impl Executors {
    fn own(&self, term: u64, city: &City) -> bool {
        self.0 == Bug::Term || admits(city.fence, term)
    }
}

fn name(i: usize, e: &Executor) -> String {
    format!("{i}/{}", e.life)
}

impl Model for Executors {
    type State = City;
    type Action = Do;

    fn init_states(&self) -> Vec<City> {
        vec![City { troubles: 2, ..City::default() }]
    }

    fn actions(&self, city: &City, out: &mut Vec<Do>) {
        if city.now < END {
            out.push(Do::Tick);
        }
        for (i, e) in city.all.iter().enumerate() {
            // A question on its way is answered, whether its asker stands still or not.
            if e.asked.is_some() {
                out.push(Do::Answer(i, false));
                if city.troubles > 0 {
                    out.push(Do::Answer(i, true));
                }
            }
            if e.stopped {
                out.push(Do::Wake(i));
                continue;
            }
            if e.asked.is_none() {
                out.push(Do::Ask(i));
            }
            if let Some(t) = e.tenure {
                let fenced = city.fence >= t.term;
                match (e.last, e.making) {
                    (None, _) if !fenced => {
                        out.push(Do::Fence(i));
                        if self.0 == Bug::Order {
                            out.push(Do::Read(i));
                        }
                    }
                    (None, _) => out.push(Do::Read(i)),
                    (Some(_), _) if !fenced => out.push(Do::Fence(i)),
                    (Some(last), None) if last < ITEMS => out.push(Do::Make(i)),
                    (Some(_), Some(_)) => out.push(Do::Keep(i)),
                    _ => {}
                }
                out.push(Do::Send(i));
            }
            if city.troubles > 0 {
                out.extend([Do::Stop(i), Do::Die(i)]);
            }
        }
    }

    fn next_state(&self, last: &City, action: Do) -> Option<City> {
        let mut city = last.clone();
        match action {
            Do::Tick => city.now += 1,
            Do::Ask(i) => city.all[i].asked = Some(city.now),
            Do::Answer(i, lost) => {
                let e = &mut city.all[i];
                let asked = e.asked.take()?;
                city.troubles -= u8::from(lost);
                let bid = Bid { holder: name(i, e), term: e.tenure.map(|t| t.term), lease_ms: LEASE, ..Bid::default() };
                match decide(&city.lease, &bid, city.now) {
                    Some(next) if lost => city.lease = next,
                    Some(next) => {
                        if e.tenure.is_none() {
                            (e.last, e.making) = (None, None);
                        }
                        e.tenure = Some(Tenure::granted(next.term, asked, LEASE));
                        city.lease = next;
                    }
                    None if lost => {}
                    // Another one is at work: it ends, and starts again to stand by.
                    None if e.tenure.is_some() => {
                        *e = Executor { life: e.life + 1, stopped: e.stopped, ..Executor::default() }
                    }
                    None => {}
                }
            }
            Do::Fence(i) => {
                let term = city.all[i].tenure?.term;
                city.fence = city.fence.max(term);
            }
            Do::Read(i) => city.all[i].last = Some(city.items.keys().max().copied().unwrap_or_default()),
            Do::Make(i) => city.all[i].making = Some(city.all[i].last? + 1),
            Do::Keep(i) => {
                let (number, term) = (city.all[i].making.take()?, city.all[i].tenure?.term);
                if self.own(term, &city) {
                    city.twice |= city.items.insert(number, term).is_some();
                    city.all[i].last = Some(number);
                } else {
                    city.refused = true;
                    let e = &mut city.all[i];
                    *e = Executor { life: e.life + 1, ..Executor::default() };
                }
            }
            Do::Send(i) => {
                let tenure = city.all[i].tenure?;
                if self.0 != Bug::Tenure && !tenure.holds(city.now) {
                    return None;
                }
                city.late |= tenure.term != city.lease.term;
            }
            Do::Stop(i) => (city.all[i].stopped, city.troubles) = (true, city.troubles - 1),
            Do::Wake(i) => city.all[i].stopped = false,
            Do::Die(i) => {
                let life = city.all[i].life + 1;
                city.troubles -= 1;
                city.all[i] = Executor { life, ..Executor::default() };
            }
        }
        Some(city)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no number is given twice", |_, city: &City| !city.twice),
            Property::always("nothing leaves who is not at work", |_, city: &City| !city.late),
            Property::sometimes("one goes on where the other stopped", |_, city: &City| {
                city.items.len() as u64 == ITEMS && city.items.values().min() != city.items.values().max()
            }),
            Property::sometimes("a former one is refused", |m: &Self, city: &City| m.0 == Bug::Term || city.refused),
        ]
    }
}

#[test]
fn one_executor_is_at_work_whoever_stops_and_wakes() {
    Executors(Bug::None).checker().threads(2).spawn_bfs().join().assert_properties();
}

#[test]
fn each_rule_that_is_left_out_is_missed() {
    for (bug, broken) in [
        (Bug::Term, "no number is given twice"),
        (Bug::Order, "no number is given twice"),
        (Bug::Tenure, "nothing leaves who is not at work"),
    ] {
        let checker = Executors(bug).checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        assert!(checker.discovery(broken).is_some(), "{broken}");
    }
}
