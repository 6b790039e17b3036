//! What joins the sandbox, where a guest asks for variables, and the directory, which knows them.

use std::sync::Arc;

use crate::control::{Directory, Target};
use crate::name::VariableName;
use crate::sandbox::{Reading, Unavailable, Variables};

/// The variables of what a request is for.
pub(super) struct VariablesOf {
    pub directory: Arc<Directory>,
    pub target: Arc<Target>,
}

impl Variables for VariablesOf {
    fn get<'a>(&'a self, name: &'a VariableName) -> Reading<'a> {
        Box::pin(async move {
            self.directory.variable(&self.target, name).await.map_err(|error| {
                tracing::error!(%error, "a function cannot read its variables");
                Unavailable
            })
        })
    }
}
