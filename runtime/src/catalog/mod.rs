//! The catalog: components by digest, compiled once, mapped from disk while they are used.
//!
//! It owns `data/artifacts`: `<sha256>.wasm` as uploaded, `<sha256>-<compatibility>.cwasm` as compiled for its world,
//! and beside that a keyed MAC, because mapping a compiled component is running its bytes. Nothing outside this room
//! knows where components lie.

mod artifact;
mod bounds;
mod compile;

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OnceCell, Semaphore};

pub use artifact::{Artifacts, Digest, component_file};
pub use compile::{Compiler, CompilerLimits, compile_in_this_process};

use crate::limits;
use crate::memory::Exhausted;
use crate::sandbox::{Compiled, LinkError, Sandbox, World};
use crate::telemetry::{Metrics, in_current_request};

/// Why a component cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// It is no component, or one that the node cannot run. The uploader's to mend.
    #[error("{0}")]
    Unsupported(String),
    /// Compiling it took more time or memory than it may.
    #[error("{0}")]
    TooCostly(String),
    /// The node has no memory for the compiler now.
    #[error(transparent)]
    NodeMemory(#[from] Exhausted),
    /// Files cannot be read or written, or are not what was written. The operator's to mend.
    #[error("{0}")]
    Storage(String),
}

impl From<std::io::Error> for CatalogError {
    fn from(error: std::io::Error) -> Self {
        Self::Storage(error.to_string())
    }
}

/// All components of the node.
pub struct Catalog {
    artifacts: Artifacts,
    sandbox: Arc<Sandbox>,
    compiler: Compiler,
    compiles: Semaphore,
    components_max: usize,
    metrics: Arc<Metrics>,
    mapped: Mutex<HashMap<Digest, Arc<Slot>>>,
}

struct Slot {
    compiled: OnceCell<Arc<Compiled>>,
    used: Mutex<Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Catalog {
    /// The catalog over a folder of artifacts, of which `components_max` are mapped at most.
    #[must_use]
    pub fn new(
        artifacts: Artifacts,
        sandbox: Arc<Sandbox>,
        compiler: Compiler,
        components_max: usize,
        metrics: Arc<Metrics>,
    ) -> Self {
        let compiles = Semaphore::new(limits::COMPILES_MAX);
        Self { artifacts, sandbox, compiler, compiles, components_max, metrics, mapped: Mutex::default() }
    }

    /// The compiled component, from memory or mapped now.
    ///
    /// # Errors
    /// When its files are gone or damaged.
    pub async fn load(self: &Arc<Self>, digest: &Digest) -> Result<Arc<Compiled>, CatalogError> {
        let slot = self.slot(digest);
        *lock(&slot.used) = Instant::now();
        if let Some(compiled) = slot.compiled.get() {
            return Ok(compiled.clone());
        }
        // In a task of its own: a client that gives up must not stop a compilation that others wait for.
        let (catalog, digest) = (self.clone(), digest.clone());
        let mapping = async move { slot.compiled.get_or_try_init(|| catalog.map(&digest)).await.cloned() };
        tokio::spawn(in_current_request(mapping))
            .await
            .map_err(|error| CatalogError::Storage(error.to_string()))?
    }

    /// Takes in an uploaded component: compiles it and makes sure that it can run. Kept only if it can.
    ///
    /// # Errors
    /// When it cannot run here, or cannot be stored.
    pub async fn admit(self: &Arc<Self>, component: Vec<u8>) -> Result<Digest, CatalogError> {
        let (digest, component) = tokio::task::spawn_blocking(|| (Digest::of(&component), component))
            .await
            .map_err(|error| CatalogError::Storage(error.to_string()))?;
        if self.artifacts.holds(&digest) {
            self.load(&digest).await?;
            return Ok(digest);
        }
        let upload = self.artifacts.stage(component).await?;
        let world = self.compile(upload.path(), &digest).await?;
        match self.load(&digest).await {
            Ok(_) => {
                self.artifacts.keep(upload, &digest).await?;
                Ok(digest)
            }
            Err(error) => {
                lock(&self.mapped).remove(&digest);
                self.artifacts.remove_compiled(&digest, self.sandbox.compatibility(world)).await;
                Err(error)
            }
        }
    }

    async fn map(&self, digest: &Digest) -> Result<Arc<Compiled>, CatalogError> {
        let is_compiled =
            |world: &World| self.artifacts.is_compiled(digest, self.sandbox.compatibility(*world));
        let world = match World::ALL.into_iter().find(is_compiled) {
            Some(world) => world,
            None => {
                tracing::info!(component = %digest, "compiling for this version of the node");
                self.compile(&self.artifacts.component_path(digest), digest).await?
            }
        };
        let path = match self.artifacts.verified(digest, self.sandbox.compatibility(world)).await {
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                tracing::warn!(component = %digest, %error, "a compiled component is compiled again");
                self.metrics.component_refused("not_ours");
                let world = self.compile(&self.artifacts.component_path(digest), digest).await?;
                self.artifacts.verified(digest, self.sandbox.compatibility(world)).await?
            }
            path => path?,
        };
        let sandbox = self.sandbox.clone();
        let linked = tokio::task::spawn_blocking(move || sandbox.link(world, &path))
            .await
            .map_err(|error| CatalogError::Storage(error.to_string()))?;
        linked.map(Arc::new).map_err(|error| match error {
            LinkError::Unsupported(reason) => {
                self.metrics.component_refused("unsupported");
                CatalogError::Unsupported(reason)
            }
            LinkError::Unmapped(_) => CatalogError::Storage(error.to_string()),
        })
    }

    async fn compile(&self, component: &std::path::Path, digest: &Digest) -> Result<World, CatalogError> {
        let _permit = self.compiles.acquire().await;
        let _charge = self.compiler.charge()?;
        let output = self.artifacts.unfinished()?;
        let compiled = self.compiler.compile(component, output.path()).await;
        let world = compiled.inspect_err(|error| match error {
            CatalogError::Unsupported(_) => self.metrics.component_refused("unsupported"),
            CatalogError::TooCostly(_) => self.metrics.component_refused("too_costly"),
            CatalogError::NodeMemory(_) | CatalogError::Storage(_) => {}
        })?;
        self.artifacts.keep_compiled(output, digest, self.sandbox.compatibility(world)).await?;
        Ok(world)
    }

    fn slot(&self, digest: &Digest) -> Arc<Slot> {
        let mut mapped = lock(&self.mapped);
        if let Some(slot) = mapped.get(digest) {
            return slot.clone();
        }
        if mapped.len() >= self.components_max {
            let oldest =
                mapped.iter().min_by_key(|(_, slot)| *lock(&slot.used)).map(|(digest, _)| digest.clone());
            if let Some(oldest) = oldest {
                mapped.remove(&oldest);
            }
        }
        let slot = Arc::new(Slot { compiled: OnceCell::new(), used: Mutex::new(Instant::now()) });
        mapped.insert(digest.clone(), slot.clone());
        slot
    }

    /// Lets go of components that no request has used for `idle_max`. A guest that runs keeps its own.
    pub fn release_idle(&self, idle_max: Duration) {
        let now = Instant::now();
        lock(&self.mapped).retain(|_, slot| now.duration_since(*lock(&slot.used)) < idle_max);
    }

    /// Mapped components, and their bytes.
    #[must_use]
    pub fn mapped(&self) -> (u64, u64) {
        let mapped = lock(&self.mapped);
        let bytes =
            mapped.values().filter_map(|slot| slot.compiled.get()).map(|compiled| compiled.bytes()).sum();
        (mapped.len() as u64, bytes)
    }
}
