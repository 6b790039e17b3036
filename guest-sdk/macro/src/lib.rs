//! The `#[function]` attribute of `dormouse-sdk`.
//!
//! It turns one function into what the component exports: `wasi:http/incoming-handler@0.2`, or, if the function is
//! async, `wasi:http/handler@0.3`. All behaviour lives in `dormouse-sdk`, where it can be read and tested; this crate only
//! checks the signature and names the function.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::{Error, ItemFn, Result, Signature, parse_macro_input, spanned::Spanned};

/// Makes a function the handler of this component.
///
/// The function takes the `Request`, or nothing when the answer does not depend on it (which spares reading it), and
/// returns anything that is `IntoResponse`. A component has one handler.
///
/// ```
/// use dormouse_sdk::{Request, function};
///
/// #[function]
/// fn handle(request: Request) -> String {
///     format!("You asked for {}\n", request.uri().path())
/// }
///
/// # use dormouse_sdk::testing::{Tenant, TestRequest};
/// let response = Tenant::new().call(handle, TestRequest::get("/cards"));
/// assert_eq!(response.text(), "You asked for /cards\n");
/// ```
///
/// An async function takes the `Request` of `dormouse_sdk::asynchronous`. It needs the SDK's feature `async`.
///
/// ```
/// use dormouse_sdk::asynchronous::Request;
/// use dormouse_sdk::{Result, function};
///
/// #[function]
/// async fn handle(request: Request) -> Result<String> {
///     Ok(request.into_body().text().await?.to_uppercase())
/// }
///
/// # use dormouse_sdk::testing::{Tenant, TestRequest};
/// let response = Tenant::new().call_async(handle, TestRequest::post("/").body("hello"));
/// assert_eq!(response.text(), "HELLO");
/// ```
#[proc_macro_attribute]
pub fn function(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let function = parse_macro_input!(item as ItemFn);
    expand(arguments.into(), &function).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(arguments: Tokens, function: &ItemFn) -> Result<Tokens> {
    if !arguments.is_empty() {
        return Err(Error::new(arguments.span(), "#[function] takes no arguments"));
    }
    check(&function.sig)?;
    let export = if function.sig.asyncness.is_some() { export_async } else { export };
    let export = export(&function.sig);
    Ok(quote! {
        #function
        #export
    })
}

fn export(signature: &Signature) -> Tokens {
    let name = &signature.ident;
    let (answer, check) = if signature.inputs.is_empty() {
        (quote!(respond(response_out, #name())), quote!(check_simple_handler(#name)))
    } else {
        (quote!(serve(request, response_out, #name)), quote!(check_handler(#name)))
    };
    quote! {
        #[cfg(target_family = "wasm")]
        const _: () = {
            use ::dormouse_sdk::__private as sdk;

            struct Function;

            impl sdk::Guest for Function {
                fn handle(request: sdk::IncomingRequest, response_out: sdk::ResponseOutparam) {
                    sdk::#answer;
                }
            }

            sdk::export!(Function with_types_in sdk::wasip2);
        };

        // Elsewhere the function is only tested, and has no host to export it to.
        #[cfg(not(target_family = "wasm"))]
        const _: () = ::dormouse_sdk::__private::#check;
    }
}

fn export_async(signature: &Signature) -> Tokens {
    let name = &signature.ident;
    let (answer, check) = if signature.inputs.is_empty() {
        (quote!(respond(#name().await)), quote!(check_simple_handler(#name)))
    } else {
        (quote!(serve(request, #name).await), quote!(check_handler(#name)))
    };
    quote! {
        #[cfg(target_family = "wasm")]
        const _: () = {
            use ::dormouse_sdk::__private::asynchronous as sdk;

            struct Function;

            impl sdk::Guest for Function {
                async fn handle(request: sdk::Request) -> ::core::result::Result<sdk::Response, sdk::ErrorCode> {
                    sdk::#answer
                }
            }

            sdk::export!(Function with_types_in sdk::wasip3);
        };

        #[cfg(not(target_family = "wasm"))]
        const _: () = ::dormouse_sdk::__private::asynchronous::#check;
    }
}

/// Refuses what could not work, at the place where it is written.
fn check(signature: &Signature) -> Result<()> {
    if let Some(keyword) = &signature.asyncness
        && !cfg!(feature = "async")
    {
        let message = "an async handler needs the feature `async` of dormouse-sdk: in Cargo.toml, \
                       `dormouse-sdk = { …, features = [\"async\"] }`";
        return Err(Error::new(keyword.span(), message));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new(signature.generics.span(), "#[function] handlers are not generic"));
    }
    match signature.inputs.iter().nth(1) {
        Some(second) => Err(Error::new(second.span(), "#[function] handlers take the Request, or nothing")),
        None => Ok(()),
    }
}
