//! The generated side of what a function imports beyond WASI itself.

wit_bindgen::generate!({
    path: "wit",
    world: "imports",
    generate_all,
});
