//! What a process has resident, by what it is for: read from proc_pid_smaps(5).
//!
//! The kernel knows addresses and not purposes. wasmtime's pools are told by their shape: a memory begins with the pages
//! of a compiled component, which are private once they are written, and lies before gigabytes that nobody may touch; a
//! stack of 1 MiB lies behind a guard page, the tables in one mapping of gigabytes.

use std::{fs, io};

const PIECE: u64 = 256 << 20;
const STACK: u64 = 1 << 20;
const GUARD_MAX: u64 = 64 << 10;

/// Resident bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Resident {
    /// Linear memories of guests, the pages of their image that they share included.
    pub(crate) memories: u64,
    /// Stacks of guests.
    pub(crate) stacks: u64,
    /// Tables of guests.
    pub(crate) tables: u64,
    /// Everything that the node allocates itself: SQLite's handles, requests, connections.
    pub(crate) heap: u64,
    /// The program, libraries and compiled components.
    pub(crate) files: u64,
}

impl Resident {
    /// Reads those of a process.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string(format!("/proc/{pid}/smaps"))?))
    }

    /// All of it.
    pub(crate) fn total(&self) -> u64 {
        self.memories + self.stacks + self.tables + self.heap + self.files
    }

    fn parse(smaps: &str) -> Self {
        let mut mappings: Vec<Mapping> = Vec::new();
        for line in smaps.lines() {
            if let Some(kib) = line.strip_prefix("Rss:") {
                let kib: u64 = kib.trim().trim_end_matches("kB").trim().parse().unwrap_or(0);
                if let Some(mapping) = mappings.last_mut() {
                    mapping.resident = kib << 10;
                }
            } else {
                mappings.extend(Mapping::parse(line));
            }
        }
        let mut all = Self::default();
        for (index, mapping) in mappings.iter().enumerate() {
            let before = index.checked_sub(1).and_then(|before| mappings.get(before));
            *all.place(mapping, before, mappings.get(index + 1)) += mapping.resident;
        }
        all
    }

    fn place(&mut self, own: &Mapping, before: Option<&Mapping>, after: Option<&Mapping>) -> &mut u64 {
        let is_reserve = |next: &&Mapping| next.start == own.end && next.is_closed && next.bytes() >= PIECE;
        let is_guard = |last: &&Mapping| last.end == own.start && last.is_closed && last.bytes() <= GUARD_MAX;
        match own.name.as_str() {
            name if name.ends_with(".cwasm") && own.is_writable => &mut self.memories,
            name if name.starts_with('/') => &mut self.files,
            _ if own.bytes() >= PIECE => &mut self.tables,
            _ if after.filter(is_reserve).is_some() => &mut self.memories,
            _ if own.bytes() == STACK && before.filter(is_guard).is_some() => &mut self.stacks,
            _ => &mut self.heap,
        }
    }
}

#[derive(Debug)]
struct Mapping {
    start: u64,
    end: u64,
    is_closed: bool,
    is_writable: bool,
    name: String,
    resident: u64,
}

impl Mapping {
    /// A line such as `7f00-7f10 rw-p 00000000 00:00 0   [heap]`.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let start = u64::from_str_radix(start, 16).ok()?;
        let end = u64::from_str_radix(end, 16).ok()?;
        let permissions = words.next()?;
        let (is_closed, is_writable) = (permissions.starts_with("---"), permissions.contains('w'));
        let name = words.nth(3).unwrap_or_default().to_owned();
        Some(Self { start, end, is_closed, is_writable, name, resident: 0 })
    }

    fn bytes(&self) -> u64 {
        self.end - self.start
    }
}

#[cfg(test)]
mod tests {
    use super::Resident;

    #[test]
    fn mappings_are_told_by_their_shape() {
        let smaps = "1000-2000 r-xp 00000000 fe:00 7 /bin/dormouse\nRss: 4 kB\n\
            10000-11000 ---p 00000000 00:00 0 \nRss: 0 kB\n\
            11000-111000 rw-p 00000000 00:00 0 \nRss: 8 kB\n\
            200000-210000 rw-p 00000000 fe:00 9 /data/artifacts/a.cwasm\nRss: 16 kB\n\
            210000-220000 rw-p 00000000 00:00 0 \nRss: 32 kB\n\
            220000-40000000 ---p 00000000 00:00 0 \nRss: 0 kB\n\
            50000000-70000000 rw-p 00000000 00:00 0 \nRss: 64 kB\n\
            80000000-80200000 rw-p 00000000 00:00 0 \nRss: 128 kB\n";
        let resident = Resident::parse(smaps);
        let kib = |number: u64| number << 10;
        let expected =
            Resident { memories: kib(48), stacks: kib(8), tables: kib(64), heap: kib(128), files: kib(4) };
        assert_eq!(resident, expected);
        assert_eq!(resident.total(), kib(252));
    }
}
