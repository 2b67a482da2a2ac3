//! Duties as plain sentences: part of the text that people approve.

use crate::duty::{Coarse, Duty, GroupKey, Need};
use crate::filter;
use crate::time::duration_text;
use concordat_protocol::terms::QuotaBy;

impl Duty {
    /// The duty as a plain sentence, part of the rendered terms.
    pub fn sentence(&self) -> String {
        match self {
            Self::Reference { field, pattern } => format!("The request must name a {field} of the form {pattern}."),
            Self::RequireFilter { any_of } => {
                let ways: Vec<String> = any_of.iter().map(Need::words).collect();
                format!("The request must name {}.", ways.join(" or "))
            }
            Self::RowFilter { filter } => {
                format!("Only rows that match {} are visible.", filter::canonical_json(filter))
            }
            Self::Fields { allow } => {
                format!("Only these fields are visible: {}. All others are removed.", allow.join(", "))
            }
            Self::Quota { max, per, by, unit } => {
                let by = if *by == QuotaBy::Session { ", in each session" } else { "" };
                format!("At most {max} {unit} a calendar {per} (UTC){by}.")
            }
            Self::Aggregate { group_by, min_group } => {
                let keys: Vec<String> = group_by.iter().map(GroupKey::words).collect();
                format!(
                    "Only totals by {} are given, and only for groups of at least {min_group} rows.",
                    keys.join(" and ")
                )
            }
            Self::Justification => "The person must state the reason.".to_owned(),
            Self::Notify { to } => format!("{} is told at once.", to.org()),
            Self::Review { within_ms } => {
                format!(
                    "Each use is reviewed within {}; an overdue review stops this clause.",
                    duration_text(*within_ms)
                )
            }
            Self::SealAccess { for_ms } => {
                format!(
                    "For {} the person concerned is told only that there was an access; then by whom and why.",
                    duration_text(*for_ms)
                )
            }
            other => other.later_sentence(),
        }
    }

    /// Sentences of the duties that alter what is shown, or bind the consumer.
    fn later_sentence(&self) -> String {
        match self {
            Self::Mask { fields, keep_last } => {
                let last = match keep_last {
                    0 => String::new(),
                    1 => " and the last character".to_owned(),
                    n => format!(" and the last {n} characters"),
                };
                format!("Of {} only ***{last} is shown.", fields.join(", "))
            }
            Self::Pseudonymise { fields, per } => {
                let span =
                    per.map_or_else(|| "in this agreement".to_owned(), |c| format!("within a calendar {c} (UTC)"));
                format!("Instead of {} a pseudonym is shown, the same for the same value {span}.", fields.join(", "))
            }
            Self::Coarsen { field, how: Coarse::Time { to } } => {
                format!("Of {field} only the {to} is shown.")
            }
            Self::Coarsen { field, how: Coarse::Number { step } } => {
                format!("{field} is shown rounded down to a multiple of {step}.")
            }
            Self::Coarsen { field, how: Coarse::Text { first } } => {
                let characters = if *first == 1 { "character" } else { "characters" };
                format!("Of {field} only the first {first} {characters} are shown.")
            }
            Self::Retention { keep_ms } => {
                format!("What was received is deleted at most {} later.", duration_text(*keep_ms))
            }
            Self::StepUp { level, within_ms } => {
                format!(
                    "The person must have signed in with the strength {level} at most {} before.",
                    duration_text(*within_ms)
                )
            }
            Self::Delay { field, for_ms } => {
                format!("Only rows whose {field} lies at least {} back are visible.", duration_text(*for_ms))
            }
            _ => String::new(),
        }
    }
}

impl Need {
    /// The need in words, for sentences and reasons.
    pub fn words(&self) -> String {
        match self.within_ms {
            None => self.field.clone(),
            Some(ms) => format!("a span of {} of at most {}", self.field, duration_text(ms)),
        }
    }
}

impl GroupKey {
    /// The key in words, for sentences and reasons.
    pub fn words(&self) -> String {
        self.cut.map_or_else(|| self.field.clone(), |c| format!("{} of {}", c, self.field))
    }
}
