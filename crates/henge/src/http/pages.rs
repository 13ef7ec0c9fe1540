//! Pages of the node itself, whatever state its data are in: who asks, and the configuration in force.

use bytes::Bytes;
use serde_json::{Value, json};

use super::service::{Whole, json_response};
use crate::access::caller::Caller;
use crate::access::permission::Permission;
use crate::config::{Config, SETTINGS};
use crate::net::data_thread::Local;

/// `GET /whoami`: what who asks may do here.
pub(super) fn whoami(local: &Local, caller: &Caller) -> Whole {
    let permissions: Vec<&str> = [Permission::Read, Permission::Write, Permission::Admin]
        .into_iter()
        .filter(|permission| caller.check(*permission).is_ok())
        .map(Permission::name)
        .collect();
    let prefixes = caller.confined().map(|key| {
        let prefixes = key.prefixes.iter();
        prefixes
            .map(|prefix| String::from_utf8_lossy(prefix.bytes()).into_owned())
            .collect::<Vec<_>>()
    });
    let page = json!({
        "name": caller.name(),
        "permissions": permissions,
        "prefixes": prefixes,
        "needs_key": !local.shared.access.ring().is_empty(),
    });
    json_response(Bytes::from(page.to_string()))
}

/// `GET /config`: the settings in force. Files with secrets are named; what is in them is nowhere here.
pub(super) fn config(config: &Config) -> Whole {
    let default = Config::default();
    let settings: Vec<Value> = SETTINGS
        .iter()
        .map(|setting| {
            let value = setting.value(config);
            let is_default = value == setting.value(&default);
            json!({
                "name": setting.name(),
                // As a file has it, whose strings are those of JSON.
                "value": serde_json::from_str::<Value>(&value.render()).ok(),
                "source": if is_default { "default" } else { "given" },
                "may_change": setting.is_reloadable(),
                "does_nothing": setting.idle_reason(config),
            })
        })
        .collect();
    json_response(Bytes::from(json!({"settings": settings}).to_string()))
}
