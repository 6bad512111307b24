//! Lists of addresses and networks: who may send, whose word counts.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::document::Section;

/// Reads the list of addresses and networks under `key`; empty if it is not there.
pub(super) fn read(section: &mut Section<'_>, key: &'static str) -> Vec<IpNet> {
    const HELP: &str = "write addresses or networks, such as \"203.0.113.7\" or \"203.0.113.0/24\"";
    let problems = section.problems();
    let Some(value) = section.value(key) else { return Vec::new() };
    let place = value.place().clone();
    let items = value.list();
    if items.as_ref().is_some_and(Vec::is_empty) {
        let (message, help) = match key {
            "allow" => ("`allow` is empty: nobody could send".to_owned(), "leave it out to allow every address"),
            _ => (format!("`{key}` is empty"), "leave it out, or name an address"),
        };
        problems.error(&place, message, help);
    }
    let mut networks = Vec::new();
    for item in items.unwrap_or_default() {
        let place = item.place().clone();
        let Some(text) = item.get::<String>() else { continue };
        // A bare address is a network of itself, 32 bits long or 128.
        match text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse::<IpNet>()) {
            Ok(network) if network.addr() != network.network() => {
                let help = format!("write \"{}\"", network.trunc());
                problems.error(&place, format!("`{key}`: \"{text}\" names an address inside a network"), help);
            }
            Ok(network) => networks.push(network),
            Err(_) => problems.error(&place, format!("`{key}`: \"{text}\" is not an address or network"), HELP),
        }
    }
    networks
}
