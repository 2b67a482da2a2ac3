//! Dead letters once more: through the document as it is now, and to the broker.

use std::collections::BTreeMap;

use super::{DeadLetter, Settled};
use crate::client::{Answer, BrokerClient, LineError, event_lines};
use crate::contract::{AdapterError, Again, Record, Reject, Row};
use crate::convert::Fault;
use crate::json_rows::bad;

/// The row of a dead letter by a document's mapping.
pub fn mapped(again: &mut Again, letter: &DeadLetter) -> Row {
    let refuse = |raw: &[u8], rule, message: &str| Row::Bad(bad(letter.origin(), raw, Fault::new(rule, message)));
    match letter.original() {
        None => refuse(&[], "replay.bytes", "its original bytes are not base64: the file was edited"),
        Some(raw) if letter.truncated => refuse(
            &raw,
            "replay.truncated",
            "its bytes were not kept whole; have the source send it again, or discard it",
        ),
        Some(raw) => again(letter.origin(), &raw),
    }
}

/// Publishes records of dead letters, at most as many as a batch holds, and says what became of each, by the letter's id.
///
/// No adapter stands behind these messages: the broker keeps the adapter's own place as it is, so that one that runs
/// meanwhile goes on undisturbed. What is `Replayed` is durable there.
///
/// # Errors
/// The broker did not answer, or refused the whole: nothing is known to be published.
pub async fn publish(
    client: &BrokerClient,
    dataset: &str,
    mut records: Vec<(String, Record)>,
) -> Result<BTreeMap<String, Settled>, AdapterError> {
    let mut settled = BTreeMap::new();
    while !records.is_empty() {
        match client.publish(dataset, event_lines(records.iter().map(|(_, r)| r))).await? {
            Answer::Accepted { .. } => {
                settled.extend(records.drain(..).map(|(id, _)| (id, Settled::Replayed)));
            }
            Answer::Refused(lines) => {
                let before = records.len();
                let of: BTreeMap<usize, &LineError> = lines.iter().map(|l| (l.index, l)).collect();
                let mut kept = Vec::new();
                for (n, (id, record)) in records.into_iter().enumerate() {
                    match of.get(&n) {
                        Some(error) => {
                            settled.insert(
                                id,
                                Settled::Refused(Box::new(Reject::by_broker(record.origin, record.raw, error))),
                            );
                        }
                        None => kept.push((id, record)),
                    }
                }
                if kept.len() == before {
                    let detail = "it names no line of the messages".to_owned();
                    return Err(AdapterError::Refused { status: 422, detail });
                }
                records = kept;
            }
            Answer::Resume(_) => {
                let detail = "it took the messages for an adapter's batch".to_owned();
                return Err(AdapterError::Refused { status: 409, detail });
            }
        }
    }
    Ok(settled)
}
