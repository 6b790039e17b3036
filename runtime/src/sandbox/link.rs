//! Linking: from a compiled component on disk to one that can run, in the world that it was compiled for.

use std::path::Path;

use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store};

use super::body::Head;
use super::engine;
use super::guest::Guest;
use super::{GuestLimits, PoolSize, RequestBody, World, p2, p3};

/// Why a component cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It imports what the node does not offer, exports no handler, or is made of more than a guest may have.
    #[error("{0}")]
    Unsupported(String),
    /// Its file cannot be opened or mapped.
    #[error("the compiled component cannot be mapped: {0}")]
    Unmapped(String),
}

impl From<wasmtime::Error> for LinkError {
    fn from(error: wasmtime::Error) -> Self {
        let reason = format!("{error:#}");
        if error.is::<std::io::Error>() { Self::Unmapped(reason) } else { Self::Unsupported(reason) }
    }
}

/// A component that is compiled, mapped and linked: one step from an instance.
pub struct Compiled {
    linked: Linked,
    bytes: u64,
}

enum Linked {
    P2(p2::Linked),
    P3(p3::Linked),
}

/// What runs the components of one world.
pub(super) struct Runner {
    world: World,
    pub(super) engine: Engine,
    linker: Linker<Guest>,
}

impl Runner {
    pub(super) fn new(world: World, limits: GuestLimits, size: PoolSize) -> anyhow::Result<Self> {
        let engine = engine::runner(world, limits, size)?;
        let linker = match world {
            World::P2 => p2::linker(&engine)?,
            World::P3 => p3::linker(&engine)?,
        };
        Ok(Self { world, engine, linker })
    }

    #[expect(unsafe_code, reason = "wasmtime trusts the bytes of a compiled component")]
    pub(super) fn link(&self, path: &Path) -> Result<Compiled, LinkError> {
        // SAFETY: the catalog has checked the file's keyed MAC, and keeps it in a folder that is the server's alone.
        let component = unsafe { Component::deserialize_file(&self.engine, path) }?;
        let image = component.image_range();
        let bytes = (image.end.addr() - image.start.addr()) as u64;
        let linked = self.linker.instantiate_pre(&component)?;
        let linked = match self.world {
            World::P2 => p2::Linked::new(linked).map(Linked::P2),
            World::P3 => p3::Linked::new(linked).map(Linked::P3),
        };
        linked.map(|linked| Compiled { linked, bytes }).ok_or_else(|| {
            LinkError::Unsupported(
                "the component exports no handler: neither wasi:http/incoming-handler@0.2 nor \
                 wasi:http/handler@0.3; build it with the dormouse SDK or another toolkit for one of them"
                    .to_owned(),
            )
        })
    }
}

impl Compiled {
    /// The world whose engine runs it.
    pub(super) fn world(&self) -> World {
        match self.linked {
            Linked::P2(_) => World::P2,
            Linked::P3(_) => World::P3,
        }
    }

    /// Bytes of its compiled form, as they are mapped. Those in memory can be fewer.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Runs a guest of it to its end.
    pub(super) async fn call(
        &self,
        store: &mut Store<Guest>,
        request: http::Request<RequestBody>,
        head: Head,
    ) -> wasmtime::Result<()> {
        match &self.linked {
            Linked::P2(linked) => linked.call(store, request, head).await,
            Linked::P3(linked) => linked.call(store, request, head).await,
        }
    }
}
