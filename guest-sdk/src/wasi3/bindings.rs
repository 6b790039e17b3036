//! The generated side of what an async function imports beyond WASI itself.

wit_bindgen::generate!({
    path: "wit-async",
    world: "imports",
    generate_all,
});
