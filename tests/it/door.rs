//! The public door under attack: what it takes for a request, whom it lets in, and for how long.

mod corpus;
