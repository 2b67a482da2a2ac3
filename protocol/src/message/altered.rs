//! Fields that a provider shows altered, as a duty of the clause says (mask, pseudonymise, coarsen).
//!
//! The publisher signed the true value, so an altered one cannot be a part of what was signed. It travels beside the
//! message: the true value's leaf stays hidden at its place, and the provider says what is shown in its stead, and by which
//! clause and duty. It vouches for that with its promise, whose root is over all of the redacted envelope. Whoever is shown
//! the true leaf later can tell whether the altered value follows from it.

use super::{MessageError, jcs, parse_ijson};
use crate::cbor::Bytes;
use crate::leaves::{LEAF_NAME_MAX, LeafView, Redacted};
use serde_json::Value;

/// The duties that alter a value.
pub const ALTERING_DUTIES: [&str; 3] = ["coarsen", "mask", "pseudonymise"];
/// What a masked text begins with.
pub const MASK: &str = "***";
/// Longest name of a clause, bytes.
const CLAUSE_MAX: usize = 256;

crate::canon_struct! {
    /// A field that is shown altered.
    pub struct AlteredField {
        /// Place of the true value's leaf among the leaves of the message, from 0. It is hidden.
        pub place: u64,
        /// Name of that leaf: `d/<member>`.
        pub name: String,
        /// The duty that altered it: one of [`ALTERING_DUTIES`].
        pub duty: String,
        /// What is shown instead, RFC 8785.
        pub value: Bytes,
    }
}

crate::canon_struct! {
    /// The fields of a message that are shown altered, and by which clause.
    pub struct Alterations {
        /// `AGR-2026-0143/F1`
        pub clause: String,
        /// The fields by name; at least one.
        pub fields: Vec<AlteredField>,
    }
}

/// What is to be shown in place of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Altering {
    /// Name of the leaf: `d/<member>`.
    pub name: String,
    /// The duty: one of [`ALTERING_DUTIES`].
    pub duty: &'static str,
    value: Bytes,
}

impl Altering {
    /// A member of `data` with the value that is shown instead.
    ///
    /// # Errors
    /// The canonicaliser refuses the value.
    pub fn member(member: &str, duty: &'static str, value: &Value) -> Result<Self, MessageError> {
        Ok(Self { name: format!("d/{member}"), duty, value: jcs(value)?.into() })
    }
}

/// Whether a value is of the form that a duty gives. Null stays null under each.
fn fits(duty: &str, value: &Value) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    match (duty, value) {
        (_, Value::Null) | ("coarsen", Value::String(_) | Value::Number(_)) => true,
        ("mask", Value::String(text)) => text.starts_with(MASK),
        ("pseudonymise", Value::String(text)) => {
            text.strip_prefix("p-").is_some_and(|id| id.len() == 32 && id.bytes().all(hex))
        }
        _ => false,
    }
}

impl AlteredField {
    fn check(&self) -> Result<(), MessageError> {
        if !self.name.starts_with("d/") || self.name.len() > LEAF_NAME_MAX {
            return Err(MessageError::Content("the name of an altered field"));
        }
        let value = parse_ijson(&self.value)?;
        if fits(&self.duty, &value) && jcs(&value)? == *self.value {
            Ok(())
        } else {
            Err(MessageError::Content("an altered value"))
        }
    }
}

impl Alterations {
    /// Alterations of a message with these leaves, whose names are `names` in order; none if nothing of it is altered.
    pub(super) fn of<'a>(clause: &str, all: &[Altering], names: impl Iterator<Item = &'a str>) -> Option<Self> {
        let field = |(place, name): (usize, &str)| {
            let altering = all.iter().find(|a| a.name == name)?;
            let (name, duty) = (name.to_owned(), altering.duty.to_owned());
            Some(AlteredField { place: place as u64, name, duty, value: altering.value.clone() })
        };
        let fields: Vec<AlteredField> = names.enumerate().filter_map(field).collect();
        (!fields.is_empty()).then(|| Self { clause: clause.to_owned(), fields })
    }

    /// Checks that each field stands for one hidden leaf, at a place that its name can have, and is of its duty's form.
    /// That the value follows from the true one can only be checked by who knows that.
    ///
    /// # Errors
    /// What is not in order.
    pub fn check(&self, leaves: &Redacted) -> Result<(), MessageError> {
        let wrong = |what| Err(MessageError::Content(what));
        if self.clause.is_empty() || self.clause.len() > CLAUSE_MAX || self.fields.is_empty() {
            return wrong("the clause that alters fields");
        }
        let (mut fields, mut last) = (self.fields.iter().peekable(), "");
        for (place, leaf) in leaves.leaves.iter().enumerate() {
            let altered = fields.next_if(|f| f.place == place as u64);
            // Names rise with the places, those of altered fields among those that are shown.
            let name = match (leaf, altered) {
                (LeafView::Hidden { .. }, None) => continue,
                (LeafView::Hidden { .. }, Some(field)) => {
                    field.check()?;
                    &field.name
                }
                (LeafView::Opened { name, .. }, None) => name,
                (LeafView::Opened { .. }, Some(_)) => return wrong("the place of an altered field"),
            };
            if name.as_str() <= last {
                return wrong("the name of an altered field");
            }
            last = name;
        }
        if fields.next().is_some() {
            return wrong("the place of an altered field");
        }
        Ok(())
    }

    /// Members of `data` with the duties that are said to have altered them.
    pub fn duties(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|f| (f.name.strip_prefix("d/").unwrap_or(&f.name), f.duty.as_str()))
    }

    /// Members of `data` with the values shown for them and the duty that altered them. Call it after [`Self::check`].
    ///
    /// # Errors
    /// A value that is no I-JSON.
    pub fn members(&self) -> Result<Vec<(&str, Value, &str)>, MessageError> {
        let mut out = Vec::with_capacity(self.fields.len());
        for f in &self.fields {
            out.push((f.name.strip_prefix("d/").unwrap_or(&f.name), parse_ijson(&f.value)?, f.duty.as_str()));
        }
        Ok(out)
    }
}
