//! Control: the admin side of the node: tenants, deployments, tokens, and the door through which they are changed.
//!
//! It owns the control data and is the only one to change it. The corridor of a request meets this room once, in
//! [`Directory`], to learn what an address stands for.

mod access;
mod api;
mod audit;
mod audit_api;
mod database_api;
mod directory;
mod extract;
mod failures;
mod generations;
mod inventory;
mod keys;
mod register;
mod reply;
mod routes;
mod schema;
mod seal;
mod store;
mod tokens;
mod tokens_api;
pub mod upload;
pub mod values;
mod variables;
mod variables_api;

pub use api::{AdminDoor, AdminState};
pub use audit::{Audit, AuditPolicy};
pub use directory::{Directory, ResolveError, Target};
pub use failures::Failures;
pub use generations::remove_unnamed;
pub use inventory::{Inventory, NamedComponent, NamedDatabase, settle_restored};
pub use keys::{KeyError, Keys};
pub use store::{Store, StoreError};
pub use variables::{FunctionVariables, VariableError, Variables};
