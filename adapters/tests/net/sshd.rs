//! An OpenSSH server of one test, on a free port with keys of its own, and a line to it that a test can cut.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::mosquitto::free_port;

const SSHD: &str = "/usr/sbin/sshd";

pub struct Sshd {
    pub port: u16,
    pub user: String,
    /// Fingerprint of the server's key.
    pub host_key: String,
    dir: tempfile::TempDir,
    child: Option<Child>,
}

fn output(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

impl Sshd {
    /// Starts one for the account of this process, which logs in by key; none where it is not installed. `subsystem` is
    /// what serves files, `internal-sftp` with its options.
    pub fn start(test: &str, subsystem: &str) -> Option<Self> {
        if !PathBuf::from(SSHD).exists() {
            crate::running::skipped(test, "openssh-server is not installed");
            return None;
        }
        let (dir, user) = (tempfile::tempdir().unwrap(), output("id", &["-un"]));
        if output("id", &["-u"]) == "0" {
            // Where it shuts itself in before a login.
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let mut server = Self { port: free_port(), user, host_key: String::new(), dir, child: None };
        for (name, kind) in [("host", "ed25519"), ("user", "ed25519"), ("other", "ecdsa"), ("old", "rsa")] {
            output("ssh-keygen", &["-q", "-t", kind, "-N", "", "-C", "", "-f", &server.file(name)]);
        }
        output("ssh-keygen", &["-q", "-t", "ecdsa", "-N", "a passphrase", "-C", "", "-f", &server.file("locked")]);
        let public = |name: &str| std::fs::read_to_string(server.file(&format!("{name}.pub"))).unwrap();
        let text = public("user") + &public("locked") + &public("old");
        std::fs::write(server.file("authorized"), text).unwrap();
        let printed = output("ssh-keygen", &["-l", "-f", &server.file("host.pub")]);
        server.host_key = printed.split(' ').nth(1).unwrap().to_owned();
        let text = format!(
            "Port {}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nPermitRootLogin yes\nMaxStartups 100\nSubsystem sftp {subsystem}\n",
            server.port,
            server.file("host"),
            server.file("authorized"),
        );
        std::fs::write(server.file("config"), text).unwrap();
        server.up();
        Some(server)
    }

    pub fn file(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    fn up(&mut self) {
        let log = std::fs::File::create(self.file("log")).unwrap();
        let mut command = Command::new(SSHD);
        command.args(["-D", "-e", "-f", &self.file("config")]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "sshd does not listen: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The members of `watch.sftp` for a folder, with the user's key.
    pub fn watch(&self, port: u16, folder: &str) -> String {
        format!(
            "sftp: {{url: \"sftp://{}@127.0.0.1:{port}{folder}\", key: \"file:{}\", host_key: \"{}\", timeout: 20s}}",
            self.user,
            self.file("user"),
            self.host_key
        )
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A line to a server.
pub struct Line {
    pub port: u16,
    /// True while nothing gets through: what is connected is cut off, and what connects.
    cut: Arc<AtomicBool>,
    /// Bytes that the server may still say before the line is cut once.
    left: Arc<AtomicU64>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Line {
    pub fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let line = Self {
            port: listener.local_addr().unwrap().port(),
            cut: Arc::default(),
            left: Arc::new(AtomicU64::new(u64::MAX)),
            open: Arc::default(),
        };
        let (cut, left, open) = (line.cut.clone(), line.left.clone(), line.open.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                if cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                open.lock().unwrap().extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                let (c, s) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || carry(c, s, &AtomicU64::new(u64::MAX)));
                let left = left.clone();
                std::thread::spawn(move || carry(server, client, &left));
            }
        });
        line
    }

    pub fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Cuts the line once, after the server said so much more.
    pub fn cut_after(&self, bytes: u64) {
        self.left.store(bytes, Ordering::SeqCst);
    }

    /// True when the line was cut since [`Line::cut_after`].
    pub fn was_cut(&self) -> bool {
        self.left.load(Ordering::SeqCst) == u64::MAX
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, left: &AtomicU64) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(n) = from.read(&mut buffer) {
        let room = left.load(Ordering::SeqCst);
        if n == 0 || room < n as u64 || to.write_all(&buffer[..n]).is_err() {
            if room < n as u64 {
                left.store(u64::MAX, Ordering::SeqCst);
            }
            break;
        }
        if room != u64::MAX {
            left.store(room - n as u64, Ordering::SeqCst);
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
