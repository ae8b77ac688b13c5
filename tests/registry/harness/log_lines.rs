//! What the service logs, line by line, for tests that look for a request of theirs.

use proofmark::telemetry;
use serde_json::Value;
use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The log of this process, in which all tests write.
#[derive(Clone, Default)]
pub struct LogLines(Arc<Mutex<Vec<u8>>>);

impl LogLines {
    /// Begins to keep what is logged.
    pub fn start() -> Self {
        static LINES: OnceLock<LogLines> = OnceLock::new();
        LINES
            .get_or_init(|| {
                let lines = Self::default();
                let subscriber = telemetry::json_lines(EnvFilter::new("proofmark=info"), lines.clone());
                tracing::subscriber::set_global_default(subscriber).unwrap();
                lines
            })
            .clone()
    }

    /// Everything so far, as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines about answers to a request, by its id.
    pub fn answered(&self, request_id: &str) -> Vec<Value> {
        let lines = self.text();
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == "answered" && line["request_id"] == request_id).collect()
    }
}

impl io::Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
