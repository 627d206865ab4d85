//! Registers a function as a test under its own name.

use proc_macro::{TokenStream, TokenTree};

/// Registers a test that runs if its needs are met: `#[common::test(NEEDS)]`, or `#[common::test]` if it has
/// none.
///
/// The function has no arguments and returns `Outcome`.
#[proc_macro_attribute]
pub fn test(needs: TokenStream, function: TokenStream) -> TokenStream {
    register("Test", needs, function)
}

/// Registers a test that runs in its own process with one thread, so that it may fork, change its namespaces or
/// count its descriptors. The function returns nothing and panics on failure.
#[proc_macro_attribute]
pub fn test_alone(needs: TokenStream, function: TokenStream) -> TokenStream {
    register("TestAlone", needs, function)
}

/// Registers a function that is called before any test. If this process was started as a test's child, the
/// function does the child's work and returns `Some(ExitCode)`.
#[proc_macro_attribute]
pub fn child(arguments: TokenStream, function: TokenStream) -> TokenStream {
    assert!(arguments.is_empty(), "it takes no arguments");
    let name = name_of(&function);
    append(function, &format!("::common::Child({name})"))
}

fn register(kind: &str, needs: TokenStream, function: TokenStream) -> TokenStream {
    let name = name_of(&function);
    let needs = if needs.is_empty() {
        "&[]".into()
    } else {
        needs.to_string()
    };
    let item = format!(
        "::common::{kind} {{ module: module_path!(), name: \"{name}\", needs: {needs}, run: {name} }}"
    );
    append(function, &item)
}

fn append(mut function: TokenStream, item: &str) -> TokenStream {
    let submit: TokenStream = format!("::common::inventory::submit! {{ {item} }}")
        .parse()
        .expect("an item");
    function.extend(submit);
    function
}

fn name_of(function: &TokenStream) -> String {
    let mut tokens = function.clone().into_iter();
    let is_fn =
        |token: &TokenTree| matches!(token, TokenTree::Ident(word) if word.to_string() == "fn");
    let name = tokens.find(is_fn).and_then(|_| tokens.next());
    name.expect("a function").to_string()
}
