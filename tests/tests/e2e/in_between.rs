//! Somebody between the court's broker and the stream server, who sees all that passes and may change it: what passes holds no
//! row, and whatever was changed is refused, with nothing of it handed on.

use crate::World;
use crate::queries::{stops, with};
use concordat_protocol::cbor;
use concordat_protocol::session::{QueryCall, QueryReply, Released};
use concordat_tests::harness::{Answer, City, runtime, wait};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What the relay does to what passes.
enum Conduct {
    Pass,
    Call(fn(&mut QueryCall)),
    Answer(fn(&mut Released)),
    Byte(usize),
    /// The answer that waits for the next, to change places with it.
    Swap(Option<Frame>),
    /// Every answer is this one.
    Repeat(Vec<u8>),
}

/// A message of the streams as it passes: the words of its line but the sizes, its headers, its payload.
struct Frame {
    words: Vec<String>,
    headers: Vec<u8>,
    payload: Vec<u8>,
}

impl Frame {
    fn bytes(&self) -> Vec<u8> {
        let total = self.headers.len() + self.payload.len();
        let sizes = match self.words[0].starts_with('H') {
            true => format!("{} {total}", self.headers.len()),
            false => total.to_string(),
        };
        let line = format!("{} {sizes}\r\n", self.words.join(" ")).into_bytes();
        [&line[..], &self.headers, &self.payload, b"\r\n"].concat()
    }
}

struct State {
    conduct: Conduct,
    /// All bytes that passed, in both directions.
    passed: Vec<u8>,
    /// Answers with data that passed.
    answers: Vec<Vec<u8>>,
    meddled: usize,
}

#[derive(Clone)]
struct Relay(Arc<Mutex<State>>);

impl Relay {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// What goes on in place of a frame.
    fn pass(&self, mut frame: Frame) -> Vec<u8> {
        let mut state = self.state();
        state.passed.extend(frame.bytes());
        if let Ok(mut call) = cbor::decode::<QueryCall>(&frame.payload) {
            if let Conduct::Call(change) = &state.conduct {
                change(&mut call);
                frame.payload = cbor::encode(&call);
                state.meddled += 1;
            }
            return frame.bytes();
        }
        let Ok(QueryReply::Released { body: mut answer }) = cbor::decode(&frame.payload) else { return frame.bytes() };
        state.answers.push(frame.payload.clone());
        match &mut state.conduct {
            Conduct::Pass | Conduct::Call(_) => return frame.bytes(),
            Conduct::Answer(change) => {
                change(&mut answer);
                frame.payload = cbor::encode(&QueryReply::Released { body: answer });
            }
            Conduct::Byte(part) => {
                let at = frame.payload.len() * *part / 16;
                frame.payload[at] ^= 1;
            }
            Conduct::Repeat(other) => frame.payload.clone_from(other),
            Conduct::Swap(waiting) => match waiting.take() {
                None => {
                    *waiting = Some(frame);
                    return vec![];
                }
                Some(mut first) => {
                    std::mem::swap(&mut first.payload, &mut frame.payload);
                    state.meddled += 2;
                    return [first.bytes(), frame.bytes()].concat();
                }
            },
        }
        state.meddled += 1;
        frame.bytes()
    }

    /// Carries one direction of a connection until it ends.
    async fn carry(self, from: impl tokio::io::AsyncRead + Unpin, mut to: impl tokio::io::AsyncWrite + Unpin) {
        let mut from = BufReader::new(from);
        loop {
            let mut line = Vec::new();
            if from.read_until(b'\n', &mut line).await.unwrap_or(0) == 0 {
                return drop(to.shutdown().await);
            }
            let text = String::from_utf8_lossy(&line).into_owned();
            let mut words: Vec<String> = text.split_ascii_whitespace().map(str::to_owned).collect();
            let sized = words.first().is_some_and(|w| ["PUB", "HPUB", "MSG", "HMSG"].contains(&w.as_str()));
            let out = if sized {
                let mut number = || words.pop().and_then(|w| w.parse::<usize>().ok()).expect("a size");
                let total = number();
                let headers = if text.starts_with('H') { number() } else { 0 };
                let mut body = vec![0; total + 2];
                if from.read_exact(&mut body).await.is_err() {
                    return;
                }
                body.truncate(total);
                let payload = body.split_off(headers);
                self.pass(Frame { words, headers: body, payload })
            } else {
                self.state().passed.extend(&line);
                line
            };
            if to.write_all(&out).await.is_err() {
                return;
            }
        }
    }
}

/// The court, whose broker speaks to the streams through the relay; straight again once this is dropped.
struct Between<'a> {
    city: &'a City,
    relay: Relay,
    file: PathBuf,
    before: String,
}

impl<'a> Between<'a> {
    fn stand(city: &'a City) -> Self {
        let url = city.config("court").nats.url;
        let server = url.strip_prefix("nats://").expect("an address").to_owned();
        let state = State { conduct: Conduct::Pass, passed: vec![], answers: vec![], meddled: 0 };
        let relay = Relay(Arc::new(Mutex::new(state)));
        let listener = wait(TcpListener::bind("127.0.0.1:0")).unwrap();
        let own = format!("nats://{}", listener.local_addr().unwrap());
        let serving = relay.clone();
        runtime().spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::spawn(serving.clone().carry(from_client, to_server));
                tokio::spawn(serving.clone().carry(from_server, to_client));
            }
        });
        let file = city.dir("court").join("node.yaml");
        let before = std::fs::read_to_string(&file).unwrap();
        assert!(before.contains(&url), "{before}");
        std::fs::write(&file, before.replace(&url, &own)).unwrap();
        let between = Self { city, relay, file, before };
        city.killed_and_back("court", "broker");
        between
    }

    fn query(&self, conduct: Conduct, body: &Value) -> (Answer, usize) {
        let before = {
            let mut state = self.relay.state();
            state.conduct = conduct;
            state.meddled
        };
        let said = self.city.api("court", "clerk").query(body);
        let mut state = self.relay.state();
        state.conduct = Conduct::Pass;
        (said, state.meddled - before)
    }
}

impl Drop for Between<'_> {
    fn drop(&mut self) {
        std::fs::write(&self.file, &self.before).unwrap();
        self.city.killed_and_back("court", "broker");
    }
}

fn of(stop: &str) -> Value {
    with(stops(), json!({"where": {"stop_id": {"eq": stop}}}))
}

/// Nothing was handed on: no answer, and no value of the row in what is said instead.
#[track_caller]
fn refused(what: &str, said: &Answer, row: &Value) {
    let text = said.text_body();
    assert!(said.status >= 400 && said.body.get("rows").is_none(), "{what}: {} {text}", said.status);
    for name in ["stop_id", "neighborhood", "time"] {
        let value = row[name].as_str().unwrap();
        assert!(!text.contains(value), "{what}: {name} in {text}");
    }
}

pub fn a_relay_reads_no_row(world: &World) {
    let between = Between::stand(world.shared());
    let (said, _) = between.query(Conduct::Pass, &stops());
    let rows = said.is(200).rows().clone();
    assert_eq!(rows.len(), 47);
    let state = between.relay.state();
    let passed = |text: &str| state.passed.windows(text.len()).any(|w| w == text.as_bytes());
    // The relay sees who asks whom for what: that is what passes in clear.
    assert_eq!(state.answers.len(), 1);
    assert!(passed("query.POLICE.stops_1") && passed("purp:pending-case"), "the bytes are those of the question");
    for row in &rows {
        for (name, value) in row.as_object().unwrap() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            // Short words, as true or traffic, may stand in any name.
            assert!(text.len() < 8 || !passed(&text), "{name} {text} passed in clear");
        }
        assert!(row["stop_id"].as_str().is_some_and(|id| id.len() >= 8));
    }
}

/// What is changed, in words and in fact.
type Change<T> = (&'static str, fn(&mut T));

pub fn a_relay_that_alters_swaps_or_repeats_gets_nothing_believed(world: &World) {
    let between = Between::stand(world.shared());
    let day = between.query(Conduct::Pass, &stops()).0.is(200).rows().clone();
    let [first, second] = [&day[0], &day[1]];
    let [ask_first, ask_second] = [first, second].map(|row| of(row["stop_id"].as_str().unwrap()));
    assert_eq!(between.query(Conduct::Pass, &ask_first).0.is(200).rows(), &vec![first.clone()]);
    let kept = between.relay.state().answers.last().cloned().expect("an answer");
    // One byte of the question: the signed request, its signature, the document that the request names by its hash.
    let calls: [Change<QueryCall>; 3] = [
        ("the request", |c| c.signed.request.0[30] ^= 1),
        ("the signature", |c| c.signed.signature[7] ^= 1),
        ("the document", |c| c.query.0[40] ^= 1),
    ];
    for (what, change) in calls {
        let (said, meddled) = between.query(Conduct::Call(change), &ask_first);
        assert!(meddled > 0, "{what}");
        refused(what, &said, first);
    }
    // One byte of the answer, by its parts and anywhere.
    let answers: [Change<Released>; 5] = [
        ("the sealed rows", |r| *r.sealed.0.last_mut().unwrap() ^= 1),
        ("the encapsulation", |r| r.encapsulation.0[40] ^= 1),
        ("the operation", |r| r.op.0[9] ^= 1),
        ("the openings", |r| *r.openings.0.last_mut().unwrap() ^= 1),
        ("the signature of the release", |r| r.release_signature.0[7] ^= 1),
    ];
    for (what, change) in answers {
        let (said, meddled) = between.query(Conduct::Answer(change), &ask_first);
        assert!(meddled > 0, "{what}");
        refused(what, &said, first);
        assert_eq!((said.status, said.text("code").as_str()), (502, "proof-invalid"), "{what}: {}", said.body);
    }
    for part in 1..16 {
        let (said, meddled) = between.query(Conduct::Byte(part), &ask_first);
        assert!(meddled > 0, "{part}");
        refused(&format!("a byte at {part} sixteenths"), &said, first);
    }
    // A true answer, given to another question, and given again to the same one.
    for (ask, row) in [(&ask_second, second), (&ask_first, first)] {
        let (said, meddled) = between.query(Conduct::Repeat(kept.clone()), ask);
        assert!(meddled > 0);
        refused("an earlier answer", &said, row);
        refused("an earlier answer", &said, first);
    }
    // Two true answers change places.
    between.relay.state().conduct = Conduct::Swap(None);
    let clerk = between.city.api("court", "clerk");
    let both = wait(async { futures::join!(clerk.query_async(&ask_first, &[]), clerk.query_async(&ask_second, &[])) });
    for said in [&both.0, &both.1] {
        refused("the other's answer", said, first);
        refused("the other's answer", said, second);
    }
    assert!(between.relay.state().meddled > 0);
    // And it goes on with what is not touched.
    assert_eq!(between.query(Conduct::Pass, &ask_second).0.is(200).rows(), &vec![second.clone()]);
}
