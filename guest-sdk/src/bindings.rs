//! The generated side of `spin:sqlite@3.0.0`. Only `database` and `params` look in here.

wit_bindgen::generate!({
    path: "wit",
    world: "imports",
    additional_derives: [PartialEq],
    generate_all,
});
