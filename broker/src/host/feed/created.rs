//! Subscriptions that consumers created: what each is, and the table that keeps them. A number is given once and never
//! again, so rows stay when a subscription is deleted.

use super::evidence::Clause;
use super::store::{FeedStore, FeedStoreError};
use concordat_protocol::ids::{AgencyId, AgreementId, DatasetId};
use concordat_protocol::limits::SUBSCRIPTIONS_PER_CONSUMER;
use concordat_protocol::subscribe::{FeedStart, numbered};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// What a subscription shows and where it began. The same name with the same terms is the same subscription.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreatedTerms {
    /// The dataset.
    pub dataset: DatasetId,
    /// The agreement.
    pub agreement: AgreementId,
    /// The clause's id.
    pub clause: String,
    /// The purpose.
    pub purpose: String,
    /// The case reference, if there is one.
    pub case: Option<String>,
    /// The filter as it was understood, JSON; `{}` for every row.
    pub filter: Value,
    /// Fields, sorted; empty for all that the clause opens.
    pub fields: Vec<String>,
    /// Where it began, as it was asked for.
    pub from: String,
}

/// A subscription that a consumer created.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Created {
    /// Its number; 0 before it has one.
    pub subscription: u64,
    /// Whose it is.
    pub consumer: AgencyId,
    /// The consumer's name of it.
    pub name: String,
    /// Pseudonym of the one who asked.
    pub actor: String,
    /// Roles the consumer's broker vouched for.
    pub roles: BTreeSet<String>,
    /// The agreement's version at creation.
    pub version: u64,
    /// The clause's handle at creation.
    pub handle: u64,
    /// The rest.
    pub terms: CreatedTerms,
}

/// How a subscription stands in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Delivered to whenever its clause permits it.
    Live,
    /// Its consumer deleted it.
    Deleted,
    /// Its agreement was revoked.
    Ended,
}

impl Life {
    /// The word in the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Deleted => "deleted",
            Self::Ended => "ended",
        }
    }

    fn of(word: &str) -> Self {
        [Self::Live, Self::Deleted].into_iter().find(|l| l.word() == word).unwrap_or(Self::Ended)
    }
}

/// What became of a wish for a subscription.
#[derive(Debug, Clone, PartialEq)]
pub enum Creating {
    /// It is new.
    New(Created),
    /// It was there, with the same terms.
    Same(Created),
    /// The name is another subscription's.
    Taken(Created),
    /// The very same call made a subscription that is over.
    Replayed,
    /// The consumer has as many as it may have.
    Full,
}

/// Where a subscription begins, as text for its terms.
pub fn start_text(from: &FeedStart) -> String {
    match from {
        FeedStart::Earliest {} => "earliest".into(),
        FeedStart::Latest {} => "latest".into(),
        FeedStart::Sequence { seq } => format!("seq:{seq}"),
        FeedStart::Time { ms } => format!("time:{ms}"),
    }
}

fn damaged(e: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(e))
}

fn text<T: Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
}

fn row(r: &Row<'_>) -> rusqlite::Result<(Created, Life)> {
    let (body, state): (String, String) = (r.get(0)?, r.get(1)?);
    Ok((serde_json::from_str(&body).map_err(damaged)?, Life::of(&state)))
}

const COLUMNS: &str = "SELECT body, state FROM created";

impl FeedStore {
    /// All subscriptions that consumers created, by number.
    pub async fn created(&self) -> Result<Vec<(Created, Life)>, FeedStoreError> {
        let sql = format!("{COLUMNS} ORDER BY subscription");
        self.group.run(move |db| db.prepare(&sql)?.query_map([], row)?.collect()).await
    }

    /// A subscription by its number.
    pub async fn created_by_number(&self, number: u64) -> Result<Option<(Created, Life)>, FeedStoreError> {
        let sql = format!("{COLUMNS} WHERE subscription = ?1");
        self.group.run(move |db| db.query_row(&sql, [number as i64], row).optional()).await
    }

    /// Makes a subscription that begins behind the place `stream_seq`, unless it is there. `call` names the request.
    pub async fn create(
        &self,
        wanted: Created,
        call: (u64, u64),
        stream_seq: u64,
        clause: Clause,
    ) -> Result<Creating, FeedStoreError> {
        self.group.run(move |db| create(db, wanted, call, stream_seq, clause)).await
    }

    /// Ends a subscription.
    pub async fn end_created(&self, number: u64, life: Life) -> Result<(), FeedStoreError> {
        let sql = "UPDATE created SET state = ?2 WHERE subscription = ?1 AND state = 'live'";
        self.group.run(move |db| db.execute(sql, params![number as i64, life.word()]).map(drop)).await
    }
}

fn create(
    db: &Connection,
    mut wanted: Created,
    call: (u64, u64),
    stream_seq: u64,
    mut clause: Clause,
) -> rusqlite::Result<Creating> {
    let again = format!("{COLUMNS} WHERE session = ?1 AND n = ?2");
    if let Some((known, life)) = db.query_row(&again, [call.0 as i64, call.1 as i64], row).optional()? {
        return Ok(if life == Life::Live { Creating::Same(known) } else { Creating::Replayed });
    }
    let named = format!("{COLUMNS} WHERE consumer = ?1 AND name = ?2 AND state = 'live'");
    if let Some((known, _)) = db.query_row(&named, [wanted.consumer.as_str(), &wanted.name], row).optional()? {
        return Ok(if known.terms == wanted.terms { Creating::Same(known) } else { Creating::Taken(known) });
    }
    let count = "SELECT count(*) FROM created WHERE consumer = ?1 AND state = 'live'";
    let live: i64 = db.query_row(count, [wanted.consumer.as_str()], |r| r.get(0))?;
    let last = "SELECT count(*) FROM created WHERE handle = ?1";
    let k: i64 = db.query_row(last, [wanted.handle as i64], |r| r.get(0))?;
    let number = u32::try_from(k + 1).ok().and_then(|k| numbered(wanted.handle, k));
    let Some(number) = number.filter(|_| (live as usize) < SUBSCRIPTIONS_PER_CONSUMER) else {
        return Ok(Creating::Full);
    };
    (wanted.subscription, clause.subscription) = (number, number);
    let (terms, body) = (text(&wanted.terms)?, text(&wanted)?);
    db.execute(
        "INSERT INTO created VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'live')",
        params![
            number as i64,
            wanted.handle as i64,
            wanted.consumer.as_str(),
            wanted.name,
            call.0 as i64,
            call.1 as i64,
            terms,
            body
        ],
    )?;
    db.execute("INSERT INTO subscription VALUES (?1, ?2, 0, 0)", [number as i64, stream_seq as i64])?;
    db.execute("INSERT OR REPLACE INTO clause VALUES (?1, ?2)", params![number as i64, text(&clause)?])?;
    Ok(Creating::New(wanted))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn wanted(consumer: &str, name: &str) -> Created {
        Created {
            subscription: 0,
            consumer: AgencyId::new(consumer).unwrap(),
            name: name.into(),
            actor: "a-1".into(),
            roles: BTreeSet::new(),
            version: 1,
            handle: 17,
            terms: CreatedTerms {
                dataset: DatasetId::new("ds:grid/load@1").unwrap(),
                agreement: AgreementId::new("AGR-2026-0143").unwrap(),
                clause: "F1".into(),
                purpose: "purp:grid-dispatch".into(),
                case: None,
                filter: json!({}),
                fields: vec![],
                from: "earliest".into(),
            },
        }
    }

    fn clause(c: &Created) -> Clause {
        let (consumer, purpose) = (c.consumer.clone(), c.terms.purpose.clone());
        let name = "AGR-2026-0143/F1".into();
        Clause {
            subscription: 0,
            handle: c.handle,
            consumer,
            name,
            purpose,
            rows_hash: [0; 32],
            max_lag_ms: 2_000,
            dataset: String::new(),
            sentence: String::new(),
            seal_ms: 0,
        }
    }

    async fn make(store: &FeedStore, c: Created, n: u64) -> Creating {
        let clause = clause(&c);
        store.create(c, (4, n), 30 + n, clause).await.unwrap()
    }

    fn number(c: Creating) -> u64 {
        let Creating::New(c) = c else { panic!("{c:?}") };
        c.subscription
    }

    #[tokio::test]
    async fn numbers_say_the_clause_and_are_never_given_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.sqlite");
        let store = FeedStore::open(&path).unwrap();
        assert_eq!(number(make(&store, wanted("transport", "a"), 1).await), 17 << 32 | 1);
        assert_eq!(number(make(&store, wanted("court", "a"), 2).await), 17 << 32 | 2, "names are each consumer's own");
        store.end_created(17 << 32 | 2, Life::Deleted).await.unwrap();
        assert_eq!(number(make(&store, Created { handle: 18, ..wanted("court", "b") }, 3).await), 18 << 32 | 1);
        drop(store);
        let store = FeedStore::open(&path).unwrap();
        assert_eq!(number(make(&store, wanted("court", "a"), 4).await), 17 << 32 | 3);
        let all: Vec<_> = store.created().await.unwrap().into_iter().map(|(c, l)| (c.subscription, l)).collect();
        let k = |n: u64| 17 << 32 | n;
        let want = [(k(1), Life::Live), (k(2), Life::Deleted), (k(3), Life::Live), (18 << 32 | 1, Life::Live)];
        assert_eq!(all, want);
        assert_eq!(store.standing(k(3), 0).await.unwrap().stream_seq, 34, "it begins where it was asked to");
        let kept: Clause = serde_json::from_str(&store.clause(k(3)).await.unwrap().unwrap()).unwrap();
        assert_eq!((kept.subscription, kept.handle), (k(3), 17));
    }

    #[tokio::test]
    async fn the_same_name_and_terms_are_the_same_subscription_and_other_terms_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = FeedStore::open(&dir.path().join("f.sqlite")).unwrap();
        let first = number(make(&store, wanted("transport", "a"), 1).await);
        let other_person = Created { actor: "a-2".into(), ..wanted("transport", "a") };
        let Creating::Same(same) = make(&store, other_person, 2).await else { panic!() };
        assert_eq!(same.subscription, first);
        let mut other = wanted("transport", "a");
        other.terms.fields = vec!["mw".into()];
        assert!(matches!(make(&store, other, 3).await, Creating::Taken(c) if c.subscription == first));
        store.end_created(first, Life::Deleted).await.unwrap();
        assert_eq!(make(&store, wanted("transport", "a"), 1).await, Creating::Replayed);
        assert_ne!(number(make(&store, wanted("transport", "a"), 5).await), first);
    }

    #[tokio::test]
    async fn a_consumer_may_have_so_many_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let store = FeedStore::open(&dir.path().join("f.sqlite")).unwrap();
        for n in 0..SUBSCRIPTIONS_PER_CONSUMER as u64 {
            number(make(&store, wanted("transport", &format!("s{n}")), n).await);
        }
        assert_eq!(make(&store, wanted("transport", "more"), 9_000).await, Creating::Full);
        number(make(&store, wanted("court", "more"), 9_001).await);
        store.end_created(17 << 32 | 9, Life::Ended).await.unwrap();
        number(make(&store, wanted("transport", "more"), 9_002).await);
    }
}
