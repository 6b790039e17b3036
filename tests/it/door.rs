//! The public door under attack: what it takes for a request, whom it lets in, and for how long.

mod browsers;
mod bystander;
mod clients;
mod corpus;
mod http2;
mod tools;
