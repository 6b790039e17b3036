//! What a function's manifest says of its limits: none laxer than the node's, which holds where nothing is said.

use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Less memory than this holds no program that a compiler makes.
const MEMORY_BYTES_MIN: u64 = 1 << 20;

/// What a request of a function may take. The node's own limits hold where one is missing, and where they are stricter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Memory of the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes_max: Option<MemoryBytes>,
    /// CPU time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_time_max_ms: Option<Milliseconds>,
    /// Time from the request's arrival to the end of its response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_time_max_ms: Option<Milliseconds>,
    /// Body of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_bytes_max: Option<u64>,
    /// How fast a client must move a body, in either direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes_per_second_min: Option<u64>,
    /// Elements of a table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_elements_max: Option<u64>,
    /// Core instances that the component is made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core_instances_max: Option<u64>,
    /// Resource handles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handles_max: Option<u64>,
    /// Host memory for the arguments of one call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostcall_bytes_max: Option<u64>,
    /// Log output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_bytes_max: Option<u64>,
}

/// A limit's name, and what is said of it.
type Named = (&'static str, Option<u64>);

impl Limits {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is more than a node's limits allow, in words.
    #[must_use]
    pub fn beyond(&self, node: &Self) -> Vec<String> {
        let (own, node) = (self.named(), node.named());
        let beyond = |((name, own), (_, node)): (Named, Named)| {
            let (own, node) = (own?, node?);
            let (is_beyond, bound) =
                if name.ends_with("_min") { (own < node, "least") } else { (own > node, "most") };
            is_beyond.then(|| format!("limits.{name} is {own}, and this node allows at {bound} {node}"))
        };
        own.into_iter().zip(node).filter_map(beyond).collect()
    }

    fn named(&self) -> [Named; 10] {
        [
            ("memory_bytes_max", self.memory_bytes_max.map(u64::from)),
            ("cpu_time_max_ms", self.cpu_time_max_ms.map(u64::from)),
            ("wall_time_max_ms", self.wall_time_max_ms.map(u64::from)),
            ("response_bytes_max", self.response_bytes_max),
            ("body_bytes_per_second_min", self.body_bytes_per_second_min),
            ("table_elements_max", self.table_elements_max),
            ("core_instances_max", self.core_instances_max),
            ("handles_max", self.handles_max),
            ("hostcall_bytes_max", self.hostcall_bytes_max),
            ("log_bytes_max", self.log_bytes_max),
        ]
    }
}

/// A size of memory that a program can live in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct MemoryBytes(u64);

impl TryFrom<u64> for MemoryBytes {
    type Error = String;
    fn try_from(bytes: u64) -> Result<Self, String> {
        if bytes < MEMORY_BYTES_MIN {
            return Err(format!(
                "{bytes} bytes are less than {MEMORY_BYTES_MIN}, the least that a guest needs"
            ));
        }
        Ok(Self(bytes))
    }
}

impl From<MemoryBytes> for u64 {
    fn from(bytes: MemoryBytes) -> Self {
        bytes.0
    }
}

/// A time span of at least one millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Milliseconds(NonZeroU64);

impl Milliseconds {
    /// The time span, rounded down; at least one millisecond.
    #[must_use]
    pub fn of(time: Duration) -> Self {
        let whole = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self(NonZeroU64::new(whole).unwrap_or(NonZeroU64::MIN))
    }

    /// The time span.
    #[must_use]
    pub fn time(self) -> Duration {
        Duration::from_millis(self.0.get())
    }
}

impl From<Milliseconds> for u64 {
    fn from(time: Milliseconds) -> Self {
        time.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(number: u64) -> Result<Limits, String> {
        let time = Some(Milliseconds::of(Duration::from_millis(number)));
        Ok(Limits {
            memory_bytes_max: Some(number.try_into()?),
            cpu_time_max_ms: time,
            wall_time_max_ms: time,
            response_bytes_max: Some(number),
            body_bytes_per_second_min: Some(number),
            table_elements_max: Some(number),
            core_instances_max: Some(number),
            handles_max: Some(number),
            hostcall_bytes_max: Some(number),
            log_bytes_max: Some(number),
        })
    }

    #[test]
    fn every_limit_is_read() -> Result<(), Box<dyn std::error::Error>> {
        let limits = all(2 << 20)?;
        let text = toml::to_string(&limits)?;
        assert!(text.lines().all(|line| line.ends_with(" = 2097152")), "{text}");
        assert_eq!(toml::from_str::<Limits>(&text)?, limits);
        Ok(())
    }

    #[test]
    fn every_limit_beyond_the_nodes_is_named() -> Result<(), Box<dyn std::error::Error>> {
        let (less, more) = (all(2 << 20)?, all(4 << 20)?);
        assert_eq!(less.beyond(&less), Vec::<String>::new());
        assert_eq!(Limits::default().beyond(&less), Vec::<String>::new());
        let named = |beyond: Vec<String>| -> Vec<String> {
            beyond
                .iter()
                .filter_map(|text| Some(text.strip_prefix("limits.")?.split(' ').next()?.to_owned()))
                .collect()
        };
        let all: Vec<String> =
            serde_json::from_value::<std::collections::BTreeMap<String, u64>>(serde_json::to_value(less)?)?
                .into_keys()
                .collect();
        let mut refused = named(more.beyond(&less));
        refused.extend(named(less.beyond(&more)));
        refused.sort();
        assert_eq!(refused, all);
        Ok(())
    }
}
