//! What a container says about its end: what it wrote to its message file or, when it failed and its policy is
//! FallbackToLogsOnError, the last lines it logged (follows the kubelet's `getTerminationMessage`).

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use runtime::cri;

/// Where on the node the container's termination message is written.
pub const PATH_ANNOTATION: &str = "io.kubernetes.container.terminationMessagePath";
/// The container's `terminationMessagePolicy`.
pub const POLICY_ANNOTATION: &str = "io.kubernetes.container.terminationMessagePolicy";

const FALLBACK: &str = "FallbackToLogsOnError";
/// Upstream's limits of a message, of one taken from the log, and of the log's lines.
const BYTES_MAX: u64 = 4096;
const LOG_BYTES_MAX: usize = 2048;
const LOG_LINES_MAX: usize = 80;
/// How much of a log's end is looked at: its lines carry a time and a stream's name before the text.
const LOG_TAIL_BYTES: u64 = 16 << 10;

/// The message of a container that has exited.
pub fn of(status: &cri::ContainerStatus) -> String {
    if !status.message.is_empty() {
        return status.message.clone();
    }
    let annotation = |key: &str| status.annotations.get(key).map(String::as_str).unwrap_or_default();
    let written = read_start(Path::new(annotation(PATH_ANNOTATION))).unwrap_or_default();
    if !written.is_empty() || annotation(POLICY_ANNOTATION) != FALLBACK || status.exit_code == 0 {
        return written;
    }
    read_end(Path::new(&status.log_path)).map(|log| last_lines(&log)).unwrap_or_default()
}

fn read_start(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn read_end(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text of a CRI log's last lines, each `TIME STREAM TAG TEXT`; tag `P` marks one that goes on in the next.
fn last_lines(log: &[u8]) -> String {
    let lines: Vec<&[u8]> = log.split_inclusive(|byte| *byte == b'\n').collect();
    let mut text = Vec::new();
    for line in &lines[lines.len().saturating_sub(LOG_LINES_MAX)..] {
        let mut parts = line.splitn(4, |byte| *byte == b' ').skip(2);
        let (Some(tag), Some(rest)) = (parts.next(), parts.next()) else { continue };
        let goes_on = tag == b"P";
        text.extend_from_slice(rest.strip_suffix(b"\n").filter(|_| goes_on).unwrap_or(rest));
    }
    let end = text.len().saturating_sub(LOG_BYTES_MAX);
    String::from_utf8_lossy(&text[end..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2026-01-02T03:04:05.000000000Z";

    #[test]
    fn partial_lines_are_joined_and_the_log_format_is_gone() {
        let log = format!("{TIME} stdout P one \n{TIME} stdout F line\n{TIME} stderr F two\n");
        assert_eq!(last_lines(log.as_bytes()), "one line\ntwo\n");
    }

    #[test]
    fn only_the_end_of_a_long_log_is_told() {
        let line = format!("{TIME} stdout F {}\n", "x".repeat(99));
        assert_eq!(last_lines(line.repeat(50).as_bytes()).len(), LOG_BYTES_MAX);
        let short = format!("{TIME} stdout F y\n").repeat(LOG_LINES_MAX + 1);
        assert_eq!(last_lines(short.as_bytes()).lines().count(), LOG_LINES_MAX);
    }

    #[test]
    fn what_is_no_log_line_is_left_out() {
        assert_eq!(last_lines(b"half\n"), "");
        assert_eq!(last_lines(b""), "");
    }
}
