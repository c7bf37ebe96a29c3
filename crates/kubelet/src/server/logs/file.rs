//! One log as a reader sees it: where the last lines begin, and how it goes on after a rotation.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader};

pub struct LogFile {
    path: PathBuf,
    lines: BufReader<File>,
    /// What stands under the path since the file that is read was moved away.
    successor: Option<File>,
}

impl LogFile {
    /// At its last `tail_lines` lines, or at its beginning.
    pub async fn open(path: PathBuf, tail_lines: Option<usize>) -> io::Result<Self> {
        let mut file = File::open(&path).await?;
        if let Some(lines) = tail_lines {
            let offset = tail_offset(&mut file, lines).await?;
            file.seek(io::SeekFrom::Start(offset)).await?;
        }
        Ok(LogFile { path, lines: BufReader::new(file), successor: None })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds to `line` what there is up to the next line end; how many bytes that was.
    pub async fn read_line(&mut self, line: &mut Vec<u8>) -> io::Result<usize> {
        self.lines.read_until(b'\n', line).await
    }

    /// To be asked at the end of the file: whether more is there since the log was rotated. The old file is read once
    /// more before the new one, for the writer turns to that after it exists.
    pub async fn goes_on(&mut self) -> io::Result<bool> {
        if let Some(next) = self.successor.take() {
            self.lines = BufReader::new(next);
            return Ok(true);
        }
        let next = match File::open(&self.path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            next => next?,
        };
        let is_same = next.metadata().await?.ino() == self.lines.get_ref().metadata().await?.ino();
        self.successor = (!is_same).then_some(next);
        Ok(!is_same)
    }
}

/// Where the last `lines` whole lines begin; reads backwards in blocks.
async fn tail_offset(file: &mut File, lines: usize) -> io::Result<u64> {
    const BLOCK: u64 = 16 * 1024;
    let end = file.metadata().await?.len();
    if lines == 0 {
        return Ok(end);
    }
    let mut seen = 0;
    let mut block_end = end;
    while block_end > 0 {
        let start = block_end.saturating_sub(BLOCK);
        file.seek(io::SeekFrom::Start(start)).await?;
        let mut block = vec![0; usize::try_from(block_end - start).expect("a block is small")];
        file.read_exact(&mut block).await?;
        for (at, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let next = start + at as u64 + 1;
            if next == end {
                continue;
            }
            seen += 1;
            if seen == lines {
                return Ok(next);
            }
        }
        block_end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn after_a_rotation_the_old_file_is_read_to_its_end_and_then_the_new_one() {
        let dir = std::env::temp_dir().join(format!("log-file-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("makes");
        let (log, old) = (dir.join("0.log"), dir.join("0.log.1"));
        std::fs::write(&log, "a\n").expect("writes");
        let mut file = LogFile::open(log.clone(), None).await.expect("opens");
        let mut read = Vec::new();
        while file.read_line(&mut read).await.expect("reads") > 0 {}
        assert!(!file.goes_on().await.expect("asks"));
        std::fs::rename(&log, &old).expect("moves");
        assert!(!file.goes_on().await.expect("asks"));
        std::fs::write(&log, "c\n").expect("writes");
        std::fs::write(&old, "a\nb\n").expect("writes");
        while file.goes_on().await.expect("asks") {
            while file.read_line(&mut read).await.expect("reads") > 0 {}
        }
        assert_eq!(read, b"a\nb\nc\n");
        std::fs::remove_dir_all(dir).expect("removes");
    }
}
