//! The result: a table for the terminal and the page, and the raw rows as CSV.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};

use crate::{
    cold::Cold,
    fleet::Fleet,
    load::Generator,
    options::Options,
    slices::{Row, Workload},
};

const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/bench/benchmarks.md"));

/// Everything that a run found out.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    /// How it was run.
    pub(crate) options: &'a Options,
    /// The machine, one list item each.
    pub(crate) machine: Vec<String>,
    /// What made the load.
    pub(crate) generator: Generator,
    /// The servers, with their memory.
    pub(crate) fleet: &'a Fleet,
    /// Every slice.
    pub(crate) rows: Vec<Row>,
    /// First requests.
    pub(crate) cold: Vec<Cold>,
}

impl Report<'_> {
    /// The result as markdown.
    pub(crate) fn table(&self) -> String {
        let parts = [self.setting(), self.throughput(), self.first_requests(), self.memory()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
    }

    fn setting(&self) -> String {
        let options = self.options;
        let mut text = String::new();
        for item in &self.machine {
            text.push_str(&format!("- {item}\n"));
        }
        text.push_str(&format!(
            "- {}: {} connections, {} slices of {} s; {} tenants\n",
            self.generator.name(),
            options.connections,
            options.slices,
            options.seconds,
            options.tenants
        ));
        for server in &self.fleet.servers {
            text.push_str(&format!("- **{}**: {}\n", server.spec.name, server.detail));
        }
        for skipped in &self.fleet.skipped {
            text.push_str(&format!("- left out: {skipped}\n"));
        }
        text
    }

    fn throughput(&self) -> String {
        let mut text = String::from(
            "| workload | server | CPU µs/request | CPU ratio | req/s | p50 µs | p99 µs | open databases | socket errors |\n\
             |---|---|---|---|---|---|---|---|---|\n",
        );
        for workload in Workload::ALL {
            for server in &self.fleet.servers {
                if let Some(line) = self.line(workload, server.spec.name) {
                    text.push_str(&line);
                }
            }
        }
        text
    }

    fn line(&self, workload: Workload, server: &str) -> Option<String> {
        let references: &[&str] = match workload {
            Workload::Hello => &["hyper"],
            Workload::Webhook | Workload::Read | Workload::HotRead | Workload::HotWebhook => {
                &["bun", "native"]
            }
        };
        let cpu = self.values(workload, server, Row::cpu_us);
        let ratio = |reference: &&str| {
            let base = spread(self.values(workload, reference, Row::cpu_us))?;
            Some(format!("{:.2} × {reference}", spread(cpu.clone())?.median / base.median))
        };
        let ratio = references.iter().filter_map(ratio).collect::<Vec<_>>().join(", ");
        let rate = spread(self.values(workload, server, Row::rate))?;
        let p50 = spread(self.values(workload, server, |row| row.sample.p50_us))?;
        let p99 = spread(self.values(workload, server, |row| row.sample.p99_us))?;
        let errors = self.values(workload, server, |row| row.sample.socket_errors as f64).iter().sum::<f64>();
        let open = self.values(workload, server, |row| row.open_max as f64).into_iter().fold(0.0, f64::max);
        let (name, cpu) = (workload.name(), spread(cpu)?);
        Some(format!(
            "| {name} | {server} | {:.1} ({:.1}–{:.1}) | {ratio} | {} ({}–{}) | {} | {} | {open:.0} | {errors:.0} |\n",
            cpu.median,
            cpu.min,
            cpu.max,
            thousands(rate.median),
            thousands(rate.min),
            thousands(rate.max),
            thousands(p50.median),
            thousands(p99.median),
        ))
    }

    fn values(&self, workload: Workload, server: &str, value: impl Fn(&Row) -> f64) -> Vec<f64> {
        self.rows.iter().filter(|row| row.workload == workload && row.server == server).map(value).collect()
    }

    fn first_requests(&self) -> String {
        if self.cold.is_empty() {
            return String::new();
        }
        let mut text = String::from(
            "| single requests | server | median ms | least–most ms | count |\n|---|---|---|---|---|\n",
        );
        for cold in &self.cold {
            let Some(times) = spread(cold.times_us.clone()) else { continue };
            let ms = |us: f64| us / 1000.0;
            let (what, server, count) = (cold.what, cold.server, cold.times_us.len());
            let (median, min, max) = (ms(times.median), ms(times.min), ms(times.max));
            text.push_str(&format!("| {what} | {server} | {median:.2} | {min:.2}–{max:.2} | {count} |\n"));
        }
        text
    }

    fn memory(&self) -> String {
        let mut text = String::from(
            "| resident MB | idle | most under load | after the load, at rest |\n|---|---|---|---|\n",
        );
        let mb = |bytes: u64| bytes as f64 / 1e6;
        for server in &self.fleet.servers {
            let memory = server.memory;
            let (idle, load, after) = (mb(memory.idle), mb(memory.load_max), mb(memory.after));
            text.push_str(&format!("| {} | {idle:.1} | {load:.1} | {after:.1} |\n", server.spec.name));
        }
        text
    }

    /// Writes the page and the raw rows.
    pub(crate) async fn write(&self) -> Result<()> {
        let folder = self.options.out();
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let raw = folder.join("raw.csv");
        fs::write(&raw, self.csv())?;
        eprintln!("wrote {}", shown(&raw));
        write_section(self.options, "table", &self.table())
    }

    fn csv(&self) -> String {
        let mut text = String::from(
            "workload,server,slice,requests,unanswered,seconds,cpu_us,cpu_us_per_request,p50_us,p99_us,\
             open_databases,socket_errors\n",
        );
        for row in &self.rows {
            let (name, sample) = (row.workload.name(), row.sample);
            let _ = writeln!(
                text,
                "{name},{},{},{},{:.1},{:.3},{},{:.3},{:.0},{:.0},{},{}",
                row.server,
                row.slice,
                sample.requests,
                row.unanswered,
                sample.seconds,
                row.cpu.as_micros(),
                row.cpu_us(),
                sample.p50_us,
                sample.p99_us,
                row.open_max,
                sample.socket_errors
            );
        }
        text
    }
}

fn shown(path: &Path) -> String {
    path.strip_prefix(crate::programs::repository()).unwrap_or(path).display().to_string()
}

/// Writes a section of the page and leaves the rest of it alone.
pub(crate) fn write_section(options: &Options, section: &str, text: &str) -> Result<()> {
    let page = options.out().with_extension("md");
    let old = fs::read_to_string(&page).unwrap_or_else(|_| PAGE.to_owned());
    fs::write(&page, replace_section(&old, section, text)?)
        .with_context(|| format!("write {}", page.display()))?;
    eprintln!("wrote {}", shown(&page));
    Ok(())
}

/// A section stands between `<!-- name -->` and `<!-- /name -->`.
fn replace_section(page: &str, section: &str, text: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- {section} -->"), format!("<!-- /{section} -->"));
    let (head, rest) = page.split_once(&begin).with_context(|| format!("the page has no {begin}"))?;
    let (_, tail) = rest.split_once(&end).with_context(|| format!("the page has no {end}"))?;
    Ok(format!("{head}{begin}\n{text}\n{end}{tail}"))
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.sort_by(f64::total_cmp);
    let (min, max) = (*values.first()?, *values.last()?);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(Spread { min, median: f64::midpoint(lower, upper), max })
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{PAGE, Spread, replace_section, spread, thousands};

    #[test]
    fn a_median_of_few() {
        assert_eq!(spread(vec![3.0, 1.0, 2.0]), Some(Spread { min: 1.0, median: 2.0, max: 3.0 }));
        assert_eq!(spread(vec![4.0, 1.0]), Some(Spread { min: 1.0, median: 2.5, max: 4.0 }));
        assert_eq!(spread(Vec::new()), None);
    }

    #[test]
    fn digits_in_groups() {
        assert_eq!([1.0, 123.4, 1234.0, 1_234_567.0].map(thousands), ["1", "123", "1,234", "1,234,567"]);
    }

    #[test]
    fn a_section_is_replaced_and_nothing_else() -> anyhow::Result<()> {
        for section in ["table", "memory", "capacity", "neighbours"] {
            let once = replace_section(PAGE, section, "one")?;
            let twice = replace_section(&once, section, "two")?;
            assert!(once.contains(&format!("<!-- {section} -->\none\n<!-- /{section} -->")));
            assert_eq!(twice, once.replace("\none\n", "\ntwo\n"));
        }
        assert!(replace_section("no markers", "table", "x").is_err());
        Ok(())
    }
}
