//! The generated side of `spin:sqlite@3.1.0`.

wit_bindgen::generate!({ path: "wit", world: "imports", generate_all });
