//! Variables as a guest sees them: Spin's interface over whatever keeps them.

use std::pin::Pin;

use wasmtime::component::HasData;

use crate::name::VariableName;

mod generated {
    wasmtime::component::bindgen!({
        path: "wit/fermyon-spin.wit",
        world: "variables-host",
        imports: { default: async | trappable },
    });
}

use generated::fermyon::spin::variables as wit;
pub(super) use wit::add_to_linker;

/// What the operator has set for one function.
pub trait Variables: Send + Sync + 'static {
    /// The value of a variable; nothing when it is not set.
    fn get<'a>(&'a self, name: &'a VariableName) -> Reading<'a>;
}

/// A value on its way.
pub type Reading<'a> = Pin<Box<dyn Future<Output = Result<Option<String>, Unavailable>> + Send + 'a>>;

/// The values cannot be read. The cause is the operator's to know; it is in the log.
#[derive(Debug, thiserror::Error)]
#[error("the node cannot read its variables; its log says why")]
pub struct Unavailable;

/// What the host function works on.
pub(super) struct View<'a>(pub &'a dyn Variables);

pub(super) struct HasVariables;

impl HasData for HasVariables {
    type Data<'a> = View<'a>;
}

impl wit::Host for View<'_> {
    async fn get(&mut self, name: String) -> wasmtime::Result<Result<String, wit::Error>> {
        let name: VariableName = match name.parse() {
            Ok(name) => name,
            Err(error) => return Ok(Err(wit::Error::InvalidName(format!("{error}")))),
        };
        Ok(match self.0.get(&name).await {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(wit::Error::Undefined(format!("the variable {name} is not set"))),
            Err(unavailable) => Err(wit::Error::Provider(unavailable.to_string())),
        })
    }
}
