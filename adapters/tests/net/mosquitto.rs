//! A Mosquitto of one test, on a free port in a folder of its own.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Mosquitto {
    pub port: u16,
    pub dir: tempfile::TempDir,
    child: Option<Child>,
}

fn installed(name: &str) -> bool {
    Command::new("sh").args(["-c", &format!("command -v {name} >/dev/null")]).status().is_ok_and(|s| s.success())
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Mosquitto {
    /// Starts one; none where it is not installed. `DIR` in `conf` is its folder; without `listener` it listens in the
    /// open.
    pub fn start(test: &str, conf: &str) -> Option<Self> {
        if !installed("mosquitto") || !installed("mosquitto_pub") {
            crate::running::skipped(test, "mosquitto and mosquitto-clients are not installed");
            return None;
        }
        let mut server = Self { port: free_port(), dir: tempfile::tempdir().unwrap(), child: None };
        let mut text = format!(
            "persistence true\npersistence_location {}/\n\
             max_queued_messages 0\nlistener {} 127.0.0.1\n",
            server.dir.path().display(),
            server.port
        );
        // Started by root it would give up root's rights, and the folder with them.
        if server.as_root() {
            text.push_str("user root\n");
        }
        text.push_str(&conf.replace("DIR", &server.dir.path().display().to_string()));
        if !conf.contains("allow_anonymous") {
            text.push_str("\nallow_anonymous true\n");
        }
        std::fs::write(server.file("mosquitto.conf"), text).unwrap();
        server.up();
        Some(server)
    }

    fn as_root(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(self.dir.path()).unwrap().uid() == 0
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts it again, on the same port with what it kept.
    pub fn up(&mut self) {
        let log = std::fs::File::create(self.file("log")).unwrap();
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(self.file("mosquitto.conf")).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = std::fs::read_to_string(self.file("log")).unwrap_or_default();
            assert!(start.elapsed() < Duration::from_secs(20), "mosquitto does not listen: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it; `hard` without a chance to write down what it has.
    pub fn down(&mut self, hard: bool) {
        let Some(mut child) = self.child.take() else { return };
        let signal = if hard { "-KILL" } else { "-TERM" };
        Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        child.wait().unwrap();
    }

    /// Publishes lines with an independent client.
    pub fn publish(&self, topic: &str, lines: &[String], more: &[&str]) {
        let mut command = Command::new("mosquitto_pub");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-q", "1", "-l", "-t", topic]).args(more);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "mosquitto_pub failed");
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.down(true);
    }
}
