//! The machine that the figures belong to.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
    time::Instant,
};

use crate::programs;

/// A few words about processor, memory, kernel, file system, disk, load and commit, one list item each.
pub(crate) async fn describe(data: &Path) -> Vec<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpu =
        value(&read("/proc/cpuinfo"), "model name", ':').unwrap_or_else(|| "unknown processor".to_owned());
    let memory = value(&read("/proc/meminfo"), "MemTotal", ':').as_deref().and_then(gib);
    let mounts = read("/proc/self/mountinfo");
    let file_system = data.canonicalize().ok().and_then(|data| file_system(&mounts, &data));
    let commit =
        programs::first_line(Path::new("git"), ["describe", "--always", "--dirty", "--exclude=*"]).await;
    let date = programs::first_line(Path::new("date"), ["-u", "+%Y-%m-%d"]).await;
    let flush = flush_ms(data).map_or_else(|_| "?".to_owned(), |ms| format!("{ms:.2}"));
    let load = read("/proc/loadavg").split_whitespace().next().unwrap_or("?").to_owned();
    vec![
        format!("{cores} × {cpu}, {} GiB memory", memory.unwrap_or_else(|| "?".to_owned())),
        format!("Linux {}, {}", read("/proc/sys/kernel/osrelease").trim(), file_system.unwrap_or_default()),
        format!(
            "{}, commit {}, profile {}",
            date.unwrap_or_default(),
            commit.unwrap_or_else(|_| "unknown".to_owned()),
            programs::profile().unwrap_or_else(|_| "unknown".to_owned())
        ),
        format!(
            "before the run: load average {load}, {flush} ms to append 4 KiB and flush it (median of 50)"
        ),
    ]
}

/// What the disk is like today: the median time of a small append that is flushed, in milliseconds.
fn flush_ms(folder: &Path) -> io::Result<f64> {
    let path = folder.join("flush");
    let mut file = File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..50 {
        let started = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    fs::remove_file(&path)?;
    times.sort();
    Ok(times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3))
}

fn value(text: &str, key: &str, separator: char) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_once(separator).map(|(_, value)| value.trim().to_owned())
}

fn gib(kib: &str) -> Option<String> {
    let kib: f64 = kib.strip_suffix("kB")?.trim().parse().ok()?;
    Some(format!("{:.1}", kib / 1024.0 / 1024.0))
}

/// Type and options of the mount that holds `path`: the longest mount point that is a prefix of it, in the
/// format of proc_pid_mountinfo(5).
fn file_system(mounts: &str, path: &Path) -> Option<String> {
    let parse = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(4);
        let (point, options) = (mount.next()?.to_owned(), mount.next()?.to_owned());
        let kind = file_system.split(' ').next()?.to_owned();
        path.starts_with(&point).then_some((point.len(), format!("{kind} ({options})")))
    };
    mounts.lines().filter_map(parse).max_by_key(|(length, _)| *length).map(|(_, text)| text)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_longest_mount_point_wins() {
        let mounts = "1 0 8:1 / / rw shared:1 - ext4 /dev/a rw\n2 1 0:9 / /mnt rw,noatime - tmpfs none rw";
        let found = |path| super::file_system(mounts, Path::new(path));
        assert_eq!(found("/mnt/x").as_deref(), Some("tmpfs (rw,noatime)"));
        assert_eq!(found("/mntx").as_deref(), Some("ext4 (rw)"));
    }
}
