//! The generated side of `fermyon:spin@2.0.0`.

wit_bindgen::generate!({ path: "wit", world: "imports", generate_all });
