#![allow(clippy::unwrap_used)]

use super::*;
use concordat_protocol::hash::sha256;

#[derive(Debug, Clone, Copy, PartialEq)]
struct Token {
    connection: u64,
    packet: u16,
}

struct Message {
    payload: Vec<u8>,
    token: Option<Token>,
}

impl Queued for Message {
    type Token = Token;
    fn print(&self) -> Print {
        print_of(sha256(&[&self.payload]))
    }
    fn token(&self) -> Option<Token> {
        self.token
    }
    fn set_token(&mut self, token: Option<Token>) {
        self.token = token;
    }
}

fn message(n: u16, connection: u64) -> Message {
    let token = Token { connection, packet: n };
    Message { payload: format!("payload {n}").into_bytes(), token: Some(token) }
}

fn packets(tokens: &[Token]) -> Vec<u16> {
    tokens.iter().map(|t| t.packet).collect()
}

fn filled(run: u8, count: u16) -> Window<Message> {
    let mut window = Window::new([run; 8]);
    (1..=count).for_each(|n| assert_eq!(window.received(message(n, 1)), None));
    window
}

/// Hands out at most `max` messages behind a checkpoint.
fn read(window: &mut Window<Message>, from: &Checkpoint, max: usize) -> (Vec<String>, Checkpoint) {
    let (seq, _) = window.place(from).unwrap();
    let out: Vec<(u64, String)> =
        window.behind(seq, max).map(|w| (w.seq, String::from_utf8(w.message.payload.clone()).unwrap())).collect();
    let checkpoint = out.last().map_or(from.clone(), |(seq, _)| window.checkpoint(*seq));
    (out.into_iter().map(|(_, text)| text).collect(), checkpoint)
}

#[test]
fn nothing_is_acknowledged_before_it_is_durable_and_then_in_order() {
    let mut window = filled(1, 6);
    let start = Checkpoint::default();
    let (first, one) = read(&mut window, &start, 2);
    let (second, two) = read(&mut window, &one, 2);
    assert_eq!((first.len(), second.len()), (2, 2));
    assert_eq!(read(&mut window, &one, 2).0, second, "the same place gives the same messages");
    assert_eq!(read(&mut window, &start, 2).0, first);
    assert_eq!(packets(&window.acknowledged(&two)), [1, 2, 3, 4]);
    assert_eq!(packets(&window.acknowledged(&one)), Vec::<u16>::new());
    assert_eq!(read(&mut window, &two, 9).0, ["payload 5", "payload 6"]);
}

#[test]
fn after_a_restart_what_is_durable_is_known_and_the_rest_is_not() {
    let mut before = filled(1, 5);
    let (_, one) = read(&mut before, &Checkpoint::default(), 2);
    let (_, two) = read(&mut before, &one, 1);
    // Three are durable, none was acknowledged; the process dies, and all five come again.
    let mut after = Window::new([2; 8]);
    assert_eq!(after.place(&two).unwrap(), (0, vec![]));
    let again: Vec<Option<u16>> = (1..=5).map(|n| after.received(message(n, 1)).map(|t| t.packet)).collect();
    assert_eq!(again, [Some(1), Some(2), Some(3), None, None]);
    assert_eq!(read(&mut after, &two, 9).0, ["payload 4", "payload 5"]);
}

#[test]
fn what_came_before_the_checkpoint_was_read_is_sorted_out_then() {
    let mut before = filled(1, 3);
    let (_, two) = read(&mut before, &Checkpoint::default(), 2);
    let mut after = filled(2, 3);
    let (seq, known) = after.place(&two).unwrap();
    assert_eq!((seq, packets(&known)), (0, vec![1, 2]));
    assert_eq!(after.place(&two).unwrap(), (0, vec![]), "once");
    assert_eq!(read(&mut after, &two, 9).0, ["payload 3"]);
}

#[test]
fn a_lost_connection_keeps_what_waits_and_knows_what_comes_again() {
    let mut window = filled(1, 4);
    let (_, one) = read(&mut window, &Checkpoint::default(), 2);
    window.connected(true);
    // The first two become durable while there is no connection that could say so.
    assert_eq!(window.acknowledged(&one), vec![]);
    let again: Vec<Option<u16>> = (1..=5).map(|n| window.received(message(n, 2)).map(|t| t.packet)).collect();
    assert_eq!(again, [Some(1), Some(2), None, None, None]);
    let (texts, two) = read(&mut window, &one, 9);
    assert_eq!(texts, ["payload 3", "payload 4", "payload 5"], "nothing twice, nothing missing");
    let tokens = window.acknowledged(&two);
    assert!(tokens.iter().all(|t| t.connection == 2));
    assert_eq!(packets(&tokens), [3, 4, 5]);
}

#[test]
fn without_a_session_nothing_is_expected_again() {
    let mut window = filled(1, 2);
    window.connected(false);
    assert_eq!(window.received(message(1, 2)), None, "an equal message is a new one");
    assert_eq!(window.len(), 3);
    let (_, all) = read(&mut window, &Checkpoint::default(), 9);
    assert_eq!(packets(&window.acknowledged(&all)), [1], "only what this connection brought");
}

#[test]
fn no_more_is_handed_out_than_a_checkpoint_can_name() {
    let mut window = filled(1, 2_000);
    let (texts, checkpoint) = read(&mut window, &Checkpoint::default(), 5_000);
    assert_eq!(texts.len(), OPEN_MAX);
    assert!(checkpoint.0.len() <= 2_900, "{}", checkpoint.0.len());
    assert_eq!(read(&mut window, &checkpoint, 256).0.len(), 0);
    assert!(window.has_behind(OPEN_MAX as u64));
    assert_eq!(window.acknowledged(&checkpoint).len(), OPEN_MAX);
    assert_eq!(read(&mut window, &checkpoint, 256).0.len(), OPEN_MAX);
}

#[test]
fn checkpoints_of_others_are_refused() {
    for bad in [vec![1], vec![2; 17], [vec![1; 17], vec![0; 5]].concat(), b"{\"v\":1}".to_vec()] {
        let mut window = filled(1, 1);
        assert!(window.place(&Checkpoint(bad.clone())).is_err(), "{bad:?}");
    }
}

#[test]
fn an_acknowledgement_that_the_server_did_not_hear_is_said_again() {
    let mut window = filled(1, 3);
    let (_, one) = read(&mut window, &Checkpoint::default(), 2);
    assert_eq!(packets(&window.acknowledged(&one)), [1, 2]);
    let (_, two) = read(&mut window, &one, 1);
    window.connected(true);
    let again: Vec<Option<u16>> = (1..=4).map(|n| window.received(message(n, 2)).map(|t| t.packet)).collect();
    assert_eq!(again, [Some(1), Some(2), None, None]);
    assert_eq!(read(&mut window, &one, 9).0, ["payload 3", "payload 4"]);
    // The next process knows it from the checkpoint.
    let mut after = Window::new([2; 8]);
    after.place(&two).unwrap();
    let again: Vec<bool> = (1..=4).map(|n| after.received(message(n, 1)).is_some()).collect();
    assert_eq!(again, [true, true, true, false]);
}
