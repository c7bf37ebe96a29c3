//! A plain question, read where it lies: nothing is allocated, so that answering what was answered
//! before costs no more than finding it.

use super::read::Reader;
use super::{CLASS_IN, Edns, HEADER_LEN, kind};

/// RFC 1035 section 2.3.4: a name as sent, its last empty label included.
const NAME_LEN_MAX: usize = 255;

/// Labels of the longest name, each of one byte behind its length.
const LABELS_MAX: usize = NAME_LEN_MAX / 2;

/// Type and class, behind the name.
const KIND_AND_CLASS_LEN: usize = 4;

/// What a client asks, when it asks as nearly all do: one name of class IN, without compression, and no
/// records but EDNS of version 0.
pub struct Question<'a> {
    message: &'a [u8],
    pub kind: u16,
    pub edns: Option<Edns>,
    /// The name in lower case, as sent. The bytes of its lengths are below those of letters.
    lower: [u8; NAME_LEN_MAX],
    name_len: usize,
    /// Where each label's length stands in `lower`.
    labels: [u8; LABELS_MAX],
    label_count: usize,
}

impl<'a> Question<'a> {
    /// `None` for whatever is not plain; [`super::parse_query`] judges that.
    pub fn read(message: &'a [u8]) -> Option<Question<'a>> {
        let header = message.get(..HEADER_LEN)?;
        // Neither a response nor another operation than a query, and not truncated.
        if header[2] & 0xfa != 0 || header[4..10] != [0, 1, 0, 0, 0, 0] || header[10] != 0 {
            return None;
        }
        let mut question = Question {
            message,
            kind: 0,
            edns: None,
            lower: [0; NAME_LEN_MAX],
            name_len: 0,
            labels: [0; LABELS_MAX],
            label_count: 0,
        };
        question.read_name()?;
        let mut reader = Reader { bytes: message, at: HEADER_LEN + question.name_len };
        question.kind = reader.u16()?;
        let class = reader.u16()?;
        question.edns = match header[11] {
            0 => None,
            1 => Some(reader.edns().filter(|edns| edns.version == 0)?),
            _ => return None,
        };
        (class == CLASS_IN && question.kind != kind::OPT).then_some(question)
    }

    fn read_name(&mut self) -> Option<()> {
        let name = &self.message[HEADER_LEN..];
        let mut at = 0;
        loop {
            let length = usize::from(*name.get(at)?);
            if length == 0 {
                break;
            }
            // Upper bits mark compression.
            if length & 0xc0 != 0 || at + 1 + length >= NAME_LEN_MAX {
                return None;
            }
            self.labels[self.label_count] = at as u8;
            self.label_count += 1;
            at += 1 + length;
        }
        self.name_len = at + 1;
        let lower = &mut self.lower[..self.name_len];
        lower.copy_from_slice(&name[..at + 1]);
        lower.make_ascii_lowercase();
        Some(())
    }

    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.message[0], self.message[1]])
    }

    pub fn recursion_desired(&self) -> bool {
        self.message[2] & 1 != 0
    }

    /// Header apart, all that a response repeats: the name as it is spelt, type and class.
    pub fn repeated(&self) -> &'a [u8] {
        &self.message[HEADER_LEN..HEADER_LEN + self.name_len + KIND_AND_CLASS_LEN]
    }

    /// The labels behind the last `skipped` ones in front of `suffix`, and those before them; `None` if the name does
    /// not end in `suffix`, of so many labels, or has not as many before it. All as sent, in lower case.
    pub fn split(&self, suffix: &[u8], suffix_labels: usize, skipped: usize) -> Option<(&[u8], &[u8])> {
        let before = self.label_count.checked_sub(suffix_labels)?;
        let at = |label: usize| self.labels.get(label).map(|at| usize::from(*at));
        let (from, to) = (at(before.checked_sub(skipped)?)?, at(before)?);
        let own = &self.lower[..self.name_len];
        (own[to..] == *suffix).then(|| (&own[..from], &own[from..to]))
    }
}
