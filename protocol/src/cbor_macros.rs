//! Macros that declare types together with their one encoding (see [`crate::cbor`]).

/// Declares a struct whose encoding is the array of its fields in order.
#[macro_export]
macro_rules! canon_struct {
    ($(#[$m:meta])* pub struct $name:ident { $($(#[$fm:meta])* pub $f:ident : $t:ty),* $(,)? }) => {
        $(#[$m])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name { $($(#[$fm])* pub $f: $t),* }

        impl $crate::cbor::Canon for $name {
            fn put(&self, e: &mut $crate::cbor::Enc) {
                e.array(0 $(+ { let _ = stringify!($f); 1 })*);
                $($crate::cbor::Canon::put(&self.$f, e);)*
            }
            fn get(d: &mut $crate::cbor::Dec<'_>) -> Result<Self, $crate::cbor::CborError> {
                d.nested(|d| {
                    d.array_of(stringify!($name), 0 $(+ { let _ = stringify!($f); 1 })*)?;
                    Ok(Self { $($f: $crate::cbor::Canon::get(d)?),* })
                })
            }
        }
    };
}

/// Declares an enum whose encoding is the array `[kind, fields...]`.
#[macro_export]
macro_rules! canon_enum {
    ($(#[$m:meta])* pub enum $name:ident {
        $($(#[$vm:meta])* $k:literal => $v:ident { $($(#[$fm:meta])* $f:ident : $t:ty),* $(,)? }),* $(,)?
    }) => {
        $(#[$m])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $name { $($(#[$vm])* $v { $($(#[$fm])* #[allow(missing_docs)] $f: $t),* }),* }

        impl $name {
            /// The number that stands first in the encoding.
            pub fn kind(&self) -> u64 {
                match self { $(Self::$v { .. } => $k),* }
            }
            /// The name of the variant.
            pub fn kind_name(&self) -> &'static str {
                match self { $(Self::$v { .. } => stringify!($v)),* }
            }
            /// The kind as documents write it: `break-glass`.
            pub fn kind_word(&self) -> String {
                $crate::cbor::kebab(self.kind_name())
            }
        }

        impl $crate::cbor::Canon for $name {
            fn put(&self, e: &mut $crate::cbor::Enc) {
                match self {
                    $(Self::$v { $($f),* } => {
                        e.array(1 $(+ { let _ = stringify!($f); 1 })*);
                        e.uint($k);
                        $($crate::cbor::Canon::put($f, e);)*
                    }),*
                }
            }
            fn get(d: &mut $crate::cbor::Dec<'_>) -> Result<Self, $crate::cbor::CborError> {
                d.nested(|d| {
                    let n = d.array()?;
                    let k = d.uint()?;
                    match k {
                        $($k => {
                            let want: u64 = 1 $(+ { let _ = stringify!($f); 1 })*;
                            if n != want {
                                return Err($crate::cbor::CborError::rule(
                                    concat!(stringify!($name), "::", stringify!($v)),
                                    format!("has {n} items, expected {want}"),
                                ));
                            }
                            Ok(Self::$v { $($f: $crate::cbor::Canon::get(d)?),* })
                        })*
                        _ => Err($crate::cbor::CborError::rule(stringify!($name), format!("unknown kind {k}"))),
                    }
                })
            }
        }
    };
}

/// Declares a field-less enum that is encoded as an unsigned integer and named by a stable word.
#[macro_export]
macro_rules! canon_words {
    ($(#[$m:meta])* pub enum $name:ident { $($(#[$vm:meta])* $k:literal => $v:ident = $w:literal),* $(,)? }) => {
        $(#[$m])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$vm])* #[allow(missing_docs)] $v = $k),* }

        impl $name {
            /// Every value, in order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$v),*];
            /// The word by which people and documents name the value.
            pub fn word(self) -> &'static str {
                match self { $(Self::$v => $w),* }
            }
            /// The value a word names.
            pub fn from_word(w: &str) -> Option<Self> {
                match w { $($w => Some(Self::$v),)* _ => None }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.word())
            }
        }

        impl $crate::cbor::Canon for $name {
            fn put(&self, e: &mut $crate::cbor::Enc) {
                e.uint(*self as u64);
            }
            fn get(d: &mut $crate::cbor::Dec<'_>) -> Result<Self, $crate::cbor::CborError> {
                match d.uint()? {
                    $($k => Ok(Self::$v),)*
                    k => Err($crate::cbor::CborError::rule(stringify!($name), format!("unknown number {k}"))),
                }
            }
        }
    };
}
