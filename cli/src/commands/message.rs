//! `message publish`: JSON lines in batches of 256; refused lines are named, and the rest of their batch goes again.

use super::Ctx;
use super::lines::{Batches, Line, Reader};
use crate::args::feeds::Publish;
use crate::context::{Api, Reply, segment};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

/// Refused lines that the result repeats; stderr names all.
const REFUSED_SHOWN: usize = 1_000;
/// Waits between tries where the server names none.
const BACKOFF: [u64; 5] = [200, 500, 1_000, 2_000, 5_000];

/// A line that is not in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refused {
    line: u64,
    rule: String,
    message: String,
}

/// Where the batches go, and what became of them.
struct Sender<'a> {
    api: Api,
    out: &'a Output,
    path: String,
    /// The name that keeps a position, and the number of its newest durable batch.
    adapter: Option<(String, u64)>,
    patience: Duration,
    accepted: u64,
    last_seq: Option<u64>,
    refused: u64,
    shown: Vec<Refused>,
    /// Last line that is durable or refused.
    done: u64,
}

/// What an answer asks for.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Durable,
    /// Indexes of the batch that must go, with rule and sentence.
    Without(BTreeMap<usize, (String, String)>),
    Smaller,
    Wait(Option<Duration>),
    Stop,
}

/// Reads an answer to a batch of `count` lines.
fn next(reply: &Reply, count: usize) -> Next {
    match reply.status {
        200 => Next::Durable,
        413 => Next::Smaller,
        // 507: the stream is full; what it keeps for a time makes room.
        429 | 503 | 507 => Next::Wait(reply.retry_after),
        422 => {
            let errors = reply.body["errors"].as_array().cloned().unwrap_or_default();
            let word = |e: &Value, k: &str| e[k].as_str().map_or_else(|| e[k].to_string(), str::to_owned);
            let at =
                |e: &Value| e["line"].as_u64().and_then(|n| usize::try_from(n).ok()).and_then(|n| n.checked_sub(1));
            let named = errors.iter().filter_map(|e| Some((at(e)?, (word(e, "code"), word(e, "message")))));
            let named: BTreeMap<_, _> = named.filter(|(n, _)| *n < count).collect();
            if named.is_empty() { Next::Stop } else { Next::Without(named) }
        }
        _ => Next::Stop,
    }
}

impl Sender<'_> {
    fn refuse(&mut self, line: u64, rule: &str, message: &str) {
        self.out.say(format!("line {line}: {rule}: {message}"));
        self.refused += 1;
        if self.shown.len() < REFUSED_SHOWN {
            self.shown.push(Refused { line, rule: rule.to_owned(), message: message.to_owned() });
        }
    }

    /// Sends lines until each is durable or refused.
    async fn send(&mut self, lines: Vec<Line>) -> Result<(), Failure> {
        let mut parts = vec![lines];
        'parts: while let Some(mut part) = parts.pop() {
            let Some(last) = part.last().cloned() else { continue };
            let mut failing: Option<(Instant, usize)> = None;
            loop {
                let reply = match self.post(&part, &last).await {
                    Ok(reply) => reply,
                    // With a number the same batch again is safe; without one it may be in the stream already.
                    Err(e) if self.adapter.is_some() && e.exit == Exit::Unavailable => {
                        self.wait(&mut failing, None, e).await?;
                        continue;
                    }
                    Err(e) => return Err(unknown(e, &part)),
                };
                match next(&reply, part.len()) {
                    Next::Durable => {
                        self.accepted += reply.body["accepted"].as_u64().unwrap_or(part.len() as u64);
                        self.last_seq = reply.body["last_seq"].as_u64().or(self.last_seq);
                        if let Some((_, number)) = &mut self.adapter {
                            *number += 1;
                        }
                        break;
                    }
                    Next::Without(named) => {
                        for (n, (rule, message)) in &named {
                            if let Some(line) = part.get(*n) {
                                self.refuse(line.number, rule, message);
                            }
                        }
                        let mut n = 0..;
                        part.retain(|_| n.next().is_none_or(|n: usize| !named.contains_key(&n)));
                        if part.is_empty() {
                            break;
                        }
                    }
                    Next::Smaller if part.len() > 1 => {
                        let second = part.split_off(part.len() / 2);
                        parts.extend([second, part]);
                        continue 'parts;
                    }
                    Next::Smaller => {
                        self.refuse(last.number, "too-large", "the record is larger than the streams take: split it");
                        break;
                    }
                    Next::Wait(asked) => self.wait(&mut failing, asked, reply.failure()).await?,
                    Next::Stop => return Err(reply.failure()),
                }
            }
            self.done = last.number;
        }
        Ok(())
    }

    async fn wait(
        &self,
        failing: &mut Option<(Instant, usize)>,
        asked: Option<Duration>,
        why: Failure,
    ) -> Result<(), Failure> {
        let (since, tries) = *failing.get_or_insert((Instant::now(), 0));
        let pause = asked.unwrap_or_else(|| Duration::from_millis(BACKOFF[tries.min(BACKOFF.len() - 1)]));
        if since.elapsed() + pause > self.patience {
            return Err(Failure { exit: Exit::Unavailable, ..why });
        }
        if tries == 0 {
            self.out.say(format!("waiting: {}", why.message.lines().next().unwrap_or_default()));
        }
        *failing = Some((since, tries + 1));
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// One try. With a name, the batch carries its number and the place behind its last line.
    async fn post(&self, part: &[Line], last: &Line) -> Result<Reply, Failure> {
        let mut body = Vec::with_capacity(part.iter().map(|l| l.bytes.len() + 1).sum());
        for line in part {
            body.extend_from_slice(&line.bytes);
            body.push(b'\n');
        }
        let mut headers = Vec::new();
        if let Some((name, number)) = &self.adapter {
            headers.push(("concordat-adapter", name.clone()));
            headers.push(("concordat-batch", (number + 1).to_string()));
            headers.push(("concordat-checkpoint", STANDARD.encode(last.place())));
        }
        self.api.post_lines(&self.path, &headers, body).await
    }
}

fn unknown(e: Failure, part: &[Line]) -> Failure {
    let (first, last) = (part.first().map_or(0, |l| l.number), part.last().map_or(0, |l| l.number));
    let message = format!(
        "{}\n  lines {first} to {last} may or may not be published; with --adapter NAME the node would know: run again and it goes on",
        e.message
    );
    Failure { message, ..e }
}

/// Where a name stands: the number of its newest batch, and the place in the input.
async fn position(api: &Api, name: &str) -> Result<(u64, Vec<u8>), Failure> {
    let at = api.get(&format!("/v1/intake/{}", segment(name))).await?;
    let checkpoint = STANDARD.decode(at["checkpoint"].as_str().unwrap_or_default());
    let checkpoint =
        checkpoint.map_err(|e| Failure::new(Exit::Failed, "gateway-answer", format!("checkpoint: {e}")))?;
    Ok((at["batch_no"].as_u64().unwrap_or_default(), checkpoint))
}

/// `message publish`
pub async fn publish(ctx: &Ctx, p: &Publish) -> Result<(), Failure> {
    let api = ctx.api("adapter")?;
    let (input, bytes): (Box<dyn BufRead + Send>, u64) = if p.file.as_os_str() == "-" {
        (Box::new(BufReader::new(std::io::stdin())), 0)
    } else {
        let named = |e: std::io::Error| Failure::new(Exit::NotFound, "file", format!("{}: {e}", p.file.display()));
        let file = File::open(&p.file).map_err(named)?;
        let bytes = file.metadata().map_or(0, |m| m.len());
        (Box::new(BufReader::with_capacity(1 << 16, file)), bytes)
    };
    let mut reader = Reader::new(input, p.bare);
    let mut adapter = None;
    if let Some(name) = &p.adapter {
        let (number, place) = position(&api, name).await?;
        let skipped = reader.skip_to(&place)?;
        if skipped > 0 {
            ctx.out.say(format!("{name}: lines 1 to {skipped} were published before"));
        }
        adapter = Some((name.clone(), number));
    }
    let mut sender = Sender {
        api,
        out: &ctx.out,
        path: format!("/v1/datasets/{}/messages", segment(&p.dataset)),
        adapter,
        patience: Duration::from_secs(p.timeout),
        accepted: 0,
        last_seq: None,
        refused: 0,
        shown: vec![],
        done: 0,
    };
    let bar = ctx.out.bar(bytes, "publishing");
    let mut batches = Batches::new(reader);
    let ran = loop {
        let batch = match batches.next() {
            Ok(Some(batch)) => batch,
            Ok(None) => break Ok(()),
            Err(e) => break Err(e),
        };
        for (line, rule, message) in &batch.refused {
            sender.refuse(*line, rule, message);
        }
        if let Err(e) = sender.send(batch.lines).await {
            break Err(e);
        }
        bar.set_position(batches.position());
    };
    bar.finish_and_clear();
    finish(ctx, p, &sender, ran)
}

fn finish(ctx: &Ctx, p: &Publish, s: &Sender<'_>, ran: Result<(), Failure>) -> Result<(), Failure> {
    let shown = s.shown.iter().map(|r| json!({"line": r.line, "rule": r.rule, "message": r.message}));
    let value = json!({"dataset": p.dataset, "accepted": s.accepted, "refused": s.refused, "last_seq": s.last_seq,
                       "refused_lines": shown.collect::<Vec<_>>()});
    ctx.out.result(&value, || {
        let last = s.last_seq.map_or_else(String::new, |n| format!(", last sequence number {n}"));
        format!("{}: {} accepted, {} refused{last}", p.dataset, s.accepted, s.refused)
    });
    if let Err(e) = ran {
        if s.adapter.is_some() && s.done == 0 {
            return Err(e);
        }
        let go_on = match &s.adapter {
            Some(_) => "run it again: it goes on where it stopped".to_owned(),
            None if s.done == 0 => "nothing was published".to_owned(),
            None => format!("done up to line {}: go on behind it", s.done),
        };
        return Err(Failure { message: format!("{}\n  {go_on}", e.message), ..e });
    }
    let again = "correct the named lines and publish them alone";
    match (s.refused, s.accepted) {
        (0, _) => Ok(()),
        (n, 0) => Err(Failure::new(Exit::Failed, "bad-lines", format!("no line was published, {n} refused: {again}"))),
        (n, _) => Err(Failure::new(
            Exit::Partial,
            "bad-lines",
            format!("{n} lines were refused, the rest is published: {again}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn reply(status: u16, body: Value) -> Reply {
        Reply { status, retry_after: Some(Duration::from_secs(1)), body }
    }

    #[test]
    fn answers_say_what_becomes_of_a_batch() {
        let errors =
            json!({"errors": [{"line": 2, "code": "schema", "message": "m"}, {"line": 9, "code": "x", "message": ""}]});
        let Next::Without(named) = next(&reply(422, errors), 3) else { panic!("named lines") };
        assert_eq!(
            named,
            BTreeMap::from([(1, ("schema".into(), "m".into()))]),
            "lines that the batch does not have are ignored"
        );
        assert_eq!(next(&reply(422, json!({"errors": []})), 3), Next::Stop, "no line named: no endless loop");
        assert_eq!(next(&reply(422, json!({"errors": [{"line": 0}]})), 3), Next::Stop);
        assert_eq!(next(&reply(429, Value::Null), 3), Next::Wait(Some(Duration::from_secs(1))));
        assert_eq!(next(&reply(503, Value::Null), 3), Next::Wait(Some(Duration::from_secs(1))));
        assert_eq!(next(&reply(413, Value::Null), 3), Next::Smaller);
        assert_eq!(next(&reply(409, Value::Null), 3), Next::Stop);
    }
}
