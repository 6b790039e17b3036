//! The form of a commit log's files. All numbers are little-endian.
//!
//! ```text
//! segment   "DORMSEG1", number of its first record (8), CRC-32 of both (4), padding to 512; then its records
//! record    "DREC", length of the body (4), its number (8), CRC-32 of these two and the body (4); the body
//! body      kind (1), length of the name (2), the name of the WAL; then the writes
//! write     offset in the WAL (8), length (4), the bytes
//! ```
//!
//! A segment ends at the first record that is not whole or does not have the number that follows. What an earlier use of
//! the file has left behind has a lower one.

use std::io::{self, Read};

/// What stands before the records of a segment.
pub(super) const SEGMENT_HEAD_BYTES: usize = 512;

/// What stands before the body of a record.
pub(super) const RECORD_HEAD_BYTES: usize = 20;

/// A body that is longer was never written.
const BODY_BYTES_MAX: usize = 1 << 20;

const SEGMENT_MARK: [u8; 8] = *b"DORMSEG1";
const RECORD_MARK: [u8; 4] = *b"DREC";

/// What a record says of a WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// These writes belong to it.
    Writes,
    /// It was emptied.
    Emptied,
    /// It is on disk, and what stands before this record about it is void.
    OnDisk,
    /// Nothing.
    Void,
}

impl Kind {
    const ALL: [(Self, u8); 4] =
        [(Self::Writes, b'W'), (Self::Emptied, b'E'), (Self::OnDisk, b'D'), (Self::Void, b'V')];

    fn byte(self) -> u8 {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or(0, |(_, byte)| *byte)
    }

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.iter().find(|(_, other)| *other == byte).map(|(kind, _)| *kind)
    }
}

/// A record as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub number: u64,
    pub kind: Kind,
    pub name: String,
    writes: Vec<u8>,
}

impl Record {
    /// Adds the record to `to`, as it was read.
    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        encode(self.number, self.kind, &self.name, &self.writes, to);
    }

    /// The writes: where each begins, and its bytes.
    pub(super) fn writes(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut rest = self.writes.as_slice();
        std::iter::from_fn(move || {
            let (offset, after) = rest.split_first_chunk::<8>()?;
            let (length, after) = after.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let (bytes, after) = after.split_at_checked(length)?;
            rest = after;
            Some((u64::from_le_bytes(*offset), bytes))
        })
    }
}

/// Writes of one WAL, in their form.
#[derive(Debug, Default)]
pub(super) struct Writes {
    bytes: Vec<u8>,
    /// Where the length of the latest stands, and the offset in the WAL behind it.
    latest: Option<(usize, u64)>,
    begins_wal: bool,
}

/// Room for a frame of a WAL and what belongs to it.
const WRITES_BYTES: usize = 4096 + 256;

impl Writes {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether the start of the WAL is among them: its header, which says that a new one begins.
    pub(super) fn begin_wal(&self) -> bool {
        self.begins_wal
    }

    /// Adds a write. One that goes on where the latest ended becomes a part of it.
    pub(super) fn push(&mut self, offset: u64, bytes: &[u8]) {
        if self.bytes.is_empty() {
            self.bytes.reserve(bytes.len() + WRITES_BYTES);
        }
        self.begins_wal |= offset == 0;
        let start = match self.latest {
            Some((start, end)) if end == offset => start,
            Some(_) | None => {
                self.bytes.extend(offset.to_le_bytes());
                self.bytes.extend([0; 4]);
                self.bytes.len() - 4
            }
        };
        self.bytes.extend(bytes);
        let length = u32::try_from(self.bytes.len() - start - 4).unwrap_or(u32::MAX);
        if let Some(place) = self.bytes.get_mut(start..start + 4) {
            place.copy_from_slice(&length.to_le_bytes());
        }
        self.latest = Some((start, offset + bytes.len() as u64));
    }
}

/// Adds a record to `to`.
pub(super) fn encode(number: u64, kind: Kind, name: &str, writes: &[u8], to: &mut Vec<u8>) {
    let body = 3 + name.len() + writes.len();
    let start = to.len();
    to.reserve(RECORD_HEAD_BYTES + body);
    to.extend(RECORD_MARK);
    to.extend(u32::try_from(body).unwrap_or(u32::MAX).to_le_bytes());
    to.extend(number.to_le_bytes());
    to.extend([0; 4]);
    to.push(kind.byte());
    to.extend(u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
    to.extend(name.as_bytes());
    to.extend(writes);
    let sum = to.get(start..).and_then(record_sum).unwrap_or_default();
    if let Some(place) = to.get_mut(start + 16..start + 20) {
        place.copy_from_slice(&sum.to_le_bytes());
    }
}

/// The CRC of a whole record.
fn record_sum(record: &[u8]) -> Option<u32> {
    let mut sum = crc32fast::Hasher::new();
    sum.update(record.get(4..16)?);
    sum.update(record.get(RECORD_HEAD_BYTES..)?);
    Some(sum.finalize())
}

/// How many bytes of whole records at the start of `records` fit into `room`.
pub(super) fn fitting(records: &[u8], room: usize) -> usize {
    let mut fitting = 0;
    while let Some(record) = records.get(fitting..)
        && let Some(length) = record.get(4..8).and_then(|length| length.try_into().ok())
        && let Ok(body) = usize::try_from(u32::from_le_bytes(length))
        && fitting + RECORD_HEAD_BYTES + body <= room
    {
        fitting += RECORD_HEAD_BYTES + body;
    }
    fitting
}

/// The same records, with those void that `are_void` says so of, one after the other.
pub(super) fn without(records: &[u8], are_void: impl IntoIterator<Item = bool>) -> Vec<u8> {
    let (mut from, mut kept) = (records, Vec::with_capacity(records.len()));
    for is_void in are_void {
        // They are in memory, and whole.
        let Ok(Some(record)) = read_record(&mut from, None) else { break };
        if is_void {
            encode(record.number, Kind::Void, &record.name, &[], &mut kept);
        } else {
            record.encode(&mut kept);
        }
    }
    kept
}

/// The number of the first of some records.
pub(super) fn first_number(records: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(records.get(8..16)?.try_into().ok()?))
}

/// What stands before the records of a segment whose first has this number.
pub(super) fn segment_head(first: u64) -> [u8; SEGMENT_HEAD_BYTES] {
    let mut head = [0; SEGMENT_HEAD_BYTES];
    let sum = segment_sum(first);
    let parts = SEGMENT_MARK.into_iter().chain(first.to_le_bytes()).chain(sum.to_le_bytes());
    head.iter_mut().zip(parts).for_each(|(place, byte)| *place = byte);
    head
}

fn segment_sum(first: u64) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&SEGMENT_MARK);
    sum.update(&first.to_le_bytes());
    sum.finalize()
}

/// The number of a segment's first record; none when it holds nothing.
pub(super) fn read_segment_head(from: &mut impl Read) -> io::Result<Option<u64>> {
    let mut head = [0; SEGMENT_HEAD_BYTES];
    if !fill(from, &mut head)? {
        return Ok(None);
    }
    let number = head.get(8..16).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    Ok(Some(number).filter(|first| segment_head(*first) == head))
}

/// The next record, which has this number, or any; none when the segment has ended.
pub(super) fn read_record(from: &mut impl Read, expected: Option<u64>) -> io::Result<Option<Record>> {
    let mut record = vec![0; RECORD_HEAD_BYTES];
    if !fill(from, &mut record)? || !record.starts_with(&RECORD_MARK) {
        return Ok(None);
    }
    let Some(number) = first_number(&record) else { return Ok(None) };
    if expected.is_some_and(|expected| expected != number) {
        return Ok(None);
    }
    let four = |record: &[u8], start: usize| {
        record.get(start..start + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
    };
    let body = usize::try_from(four(&record, 4)).unwrap_or(usize::MAX);
    if body > BODY_BYTES_MAX {
        return Ok(None);
    }
    record.resize(RECORD_HEAD_BYTES + body, 0);
    let is_whole = match record.get_mut(RECORD_HEAD_BYTES..) {
        Some(body) => fill(from, body)?,
        None => false,
    };
    if !is_whole || record_sum(&record) != Some(four(&record, 16)) {
        return Ok(None);
    }
    Ok(record.get(RECORD_HEAD_BYTES..).and_then(|body| parse_body(number, body)))
}

fn parse_body(number: u64, body: &[u8]) -> Option<Record> {
    let (kind, rest) = body.split_first()?;
    let kind = Kind::of(*kind)?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (name, writes) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    Some(Record { number, kind, name: String::from_utf8(name.to_vec()).ok()?, writes: writes.to_vec() })
}

/// Whether there was enough to read.
fn fill(from: &mut impl Read, to: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(writes: &[(u64, &[u8])]) -> Writes {
        let mut written = Writes::default();
        writes.iter().for_each(|(offset, bytes)| written.push(*offset, bytes));
        written
    }

    #[test]
    fn a_record_is_read_as_it_was_written() -> io::Result<()> {
        let writes = written(&[(32, b"head"), (36, b"page"), (8, b"again"), (8, b"and again")]);
        let mut bytes = Vec::new();
        encode(7, Kind::Writes, "a/b.db-wal", writes.as_bytes(), &mut bytes);
        encode(8, Kind::OnDisk, "a/b.db-wal", &[], &mut bytes);
        let mut from = bytes.as_slice();
        let Some(record) = read_record(&mut from, Some(7))? else {
            return Err(io::Error::other("no record"));
        };
        assert_eq!((record.kind, record.name.as_str()), (Kind::Writes, "a/b.db-wal"));
        let read: Vec<_> = record.writes().collect();
        assert_eq!(read, [(32, b"headpage".as_slice()), (8, b"again"), (8, b"and again")]);
        assert_eq!(read_record(&mut from, Some(8))?.map(|record| record.kind), Some(Kind::OnDisk));
        assert_eq!(read_record(&mut from, Some(9))?, None);
        Ok(())
    }

    #[test]
    fn what_is_torn_cut_off_or_from_an_earlier_use_is_the_end() -> io::Result<()> {
        let mut whole = Vec::new();
        encode(7, Kind::Writes, "w", written(&[(0, &[1; 40])]).as_bytes(), &mut whole);
        for damaged in 0..whole.len() {
            let mut torn = whole.clone();
            torn.iter_mut().skip(damaged).take(1).for_each(|byte| *byte ^= 0x40);
            assert_eq!(read_record(&mut torn.as_slice(), Some(7))?, None, "byte {damaged}");
            assert_eq!(read_record(&mut whole.split_at(damaged).0, Some(7))?, None);
        }
        assert_eq!(read_record(&mut whole.as_slice(), Some(8))?, None);
        assert!(read_record(&mut whole.as_slice(), Some(7))?.is_some());
        Ok(())
    }

    #[test]
    fn a_segment_says_where_it_begins_or_holds_nothing() -> io::Result<()> {
        assert_eq!(read_segment_head(&mut segment_head(9).as_slice())?, Some(9));
        assert_eq!(read_segment_head(&mut [0; SEGMENT_HEAD_BYTES].as_slice())?, None);
        assert_eq!(read_segment_head(&mut b"short".as_slice())?, None);
        Ok(())
    }

    #[test]
    fn records_that_are_void_keep_their_numbers() -> io::Result<()> {
        let mut records = Vec::new();
        for (number, name) in [(1, "sound"), (2, "failed"), (3, "sound")] {
            encode(number, Kind::Writes, name, written(&[(0, b"w")]).as_bytes(), &mut records);
        }
        let records = without(&records, [false, true, false]);
        let mut from = records.as_slice();
        for (number, kind) in [(1, Kind::Writes), (2, Kind::Void), (3, Kind::Writes)] {
            assert_eq!(read_record(&mut from, Some(number))?.map(|record| record.kind), Some(kind));
        }
        Ok(())
    }

    #[test]
    fn whole_records_are_counted() {
        let mut records = Vec::new();
        encode(1, Kind::Writes, "w", &[0; 100], &mut records);
        let one = records.len();
        encode(2, Kind::Writes, "w", &[0; 100], &mut records);
        assert_eq!(
            [0, one - 1, one, 2 * one - 1, 2 * one, 9 * one].map(|room| fitting(&records, room)),
            [0, 0, one, one, 2 * one, 2 * one]
        );
    }
}
