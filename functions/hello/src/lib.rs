//! The smallest function.

use dormouse_sdk::function;

#[function]
fn hello() -> &'static str {
    "Hello from Dormouse\n"
}
