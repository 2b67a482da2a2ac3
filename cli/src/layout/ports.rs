//! Ports on the loopback address.

use std::net::{Ipv4Addr, TcpListener};

use super::LayoutError;

/// How a city gets its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// Any that are free now.
    Free,
    /// Consecutive ones from this on; one that is taken is an error that names it.
    From(u16),
}

/// Below the range from which the system picks source ports: else an outgoing connection could sit on a server's port
/// at the moment that server is restarted.
const POOL: std::ops::Range<u16> = 20_000..32_000;

/// Hands out distinct ports and holds each bound until it is dropped.
pub struct PortPicker {
    next: u16,
    fixed: bool,
    held: Vec<TcpListener>,
}

impl PortPicker {
    /// A picker; with [`Ports::Free`] it begins at a random place of the pool, so that two at once rarely meet.
    pub fn new(ports: Ports) -> Result<Self, LayoutError> {
        let (next, fixed) = match ports {
            Ports::From(first) => (first, true),
            Ports::Free => {
                let mut r = [0u8; 2];
                getrandom::fill(&mut r).map_err(|e| LayoutError::Randomness(e.to_string()))?;
                (POOL.start + u16::from_be_bytes(r) % (POOL.end - POOL.start), false)
            }
        };
        Ok(Self { next, fixed, held: Vec::new() })
    }

    /// The next port for `what` (named in the error).
    pub fn pick(&mut self, what: &str) -> Result<u16, LayoutError> {
        for _ in 0..POOL.len() {
            let port = self.next;
            self.next = match port.checked_add(1) {
                Some(n) if self.fixed || n < POOL.end => n,
                _ => POOL.start,
            };
            match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                Ok(listener) => {
                    self.held.push(listener);
                    return Ok(port);
                }
                Err(_) if self.fixed => {
                    return Err(LayoutError::PortTaken {
                        port,
                        what: what.to_owned(),
                        fix: "choose another first port".into(),
                    });
                }
                Err(_) => {}
            }
        }
        Err(LayoutError::NoPort { first: POOL.start, last: POOL.end - 1 })
    }
}

/// Refuses when another program listens on `addr`.
pub fn check_free(addr: &str, what: &str, fix: &str) -> Result<(), LayoutError> {
    match TcpListener::bind(addr) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {
            let port = addr.rsplit_once(':').and_then(|(_, p)| p.parse().ok()).unwrap_or_default();
            Err(LayoutError::PortTaken { port, what: what.to_owned(), fix: fix.to_owned() })
        }
        Err(e) => Err(LayoutError::Address { addr: addr.to_owned(), what: what.to_owned(), why: e.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn free_ports_are_distinct_and_bindable_afterwards() {
        let mut picker = PortPicker::new(Ports::Free).unwrap();
        let ports: std::collections::BTreeSet<u16> = (0..20).map(|_| picker.pick("x").unwrap()).collect();
        assert_eq!(ports.len(), 20);
        drop(picker);
        for p in ports {
            check_free(&format!("127.0.0.1:{p}"), "x", "y").unwrap();
        }
    }

    #[test]
    fn a_taken_port_is_named_with_its_use_and_the_fix() {
        let mut picker = PortPicker::new(Ports::Free).unwrap();
        let port = picker.pick("x").unwrap();
        let e = check_free(&format!("127.0.0.1:{port}"), "broker of police", "change `listen`").unwrap_err();
        assert_eq!(e.code(), "port-taken");
        for part in [port.to_string().as_str(), "broker of police", "change `listen`"] {
            assert!(e.to_string().contains(part), "{e}");
        }
        let e = PortPicker::new(Ports::From(port)).unwrap().pick("streams").unwrap_err();
        assert!(e.to_string().contains(&port.to_string()), "{e}");
    }
}
