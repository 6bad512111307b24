//! Holds answers against the description that the gateway serves: every answer that these tests get is checked.
//!
//! What an object has beside what its schema names is an error here, so that a new field cannot be forgotten there.

use hookward::admin::openapi;
use serde_json::Value;

/// What a schema may say without a check here: it is for people, or for what generates requests.
const UNCHECKED: [&str; 7] = ["description", "examples", "format", "pattern", "minLength", "maxLength", "default"];

pub fn document() -> Value {
    serde_json::from_str(openapi::TEXT).expect("JSON")
}

/// The description of what is at a path, with its template.
fn find<'d>(document: &'d Value, path: &str) -> Option<(&'d str, &'d Value)> {
    let steps: Vec<_> = path.split('?').next().expect("the first").split('/').collect();
    let fits = |template: &str| {
        let template: Vec<_> = template.split('/').collect();
        template.len() == steps.len() && template.iter().zip(&steps).all(|(t, s)| t.starts_with('{') || t == s)
    };
    let paths = document["paths"].as_object().expect("paths");
    paths.iter().find(|(template, _)| fits(template)).map(|(template, methods)| (template.as_str(), methods))
}

/// Fails unless the answer is one that the description has for this request.
pub fn check(method: &str, path: &str, status: u16, content_type: &str, body: &[u8]) {
    let document = document();
    let problem = serde_json::json!({ "$ref": "#/components/schemas/Problem" });
    let what = format!("{method} {path} {status}");
    let described =
        find(&document, path).and_then(|(_, methods)| methods.get(method.to_lowercase().replace("head", "get")));
    let Some(described) = described else {
        assert!(matches!(status, 404 | 405), "{what} is not described");
        return validate(&document, &problem, &json(body), &what);
    };
    let response = &described["responses"][status.to_string()];
    let response = resolve(&document, response);
    assert!(response.is_object(), "{what} is not described");
    if method == "HEAD" {
        return;
    }
    let schema = &response["content"][content_type]["schema"];
    assert!(schema.is_object(), "{what} is not described as {content_type}");
    if content_type.ends_with("json") {
        validate(&document, schema, &json(body), &what);
    }
}

fn json(body: &[u8]) -> Value {
    serde_json::from_slice(body).expect("JSON")
}

fn resolve<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).expect("what is referred to"),
        None => value,
    }
}

fn validate(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Err(complaint) = fits(document, schema, value, at) {
        panic!("{complaint}");
    }
}

fn fits(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let schema = resolve(document, schema);
    let wrong = |what: &str| Err(format!("{at}: {what}: {value}"));
    for (keyword, says) in schema.as_object().expect("a schema is an object") {
        match keyword.as_str() {
            "type" => {
                let kinds = says.as_array().cloned().unwrap_or_else(|| vec![says.clone()]);
                if !kinds.iter().any(|kind| is(value, kind.as_str().expect("a name"))) {
                    return wrong(&format!("is no {says}"));
                }
            }
            "enum" if !says.as_array().expect("a list").contains(value) => return wrong("is none of the values"),
            "const" if says != value => return wrong("is another value"),
            "minimum" | "maximum" => {
                let (bound, value) = (says.as_f64().expect("a number"), value.as_f64());
                if value.is_some_and(|value| if keyword == "minimum" { value < bound } else { value > bound }) {
                    return wrong("is out of bounds");
                }
            }
            "anyOf" => {
                let any =
                    says.as_array().expect("a list").iter().any(|schema| fits(document, schema, value, at).is_ok());
                if !any {
                    return wrong("fits none of the schemas");
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    fits(document, says, item, &format!("{at}/{index}"))?;
                }
            }
            "required" => {
                let missing = says.as_array().expect("a list").iter().filter_map(Value::as_str);
                let object = value.as_object();
                if let Some(name) = object.and_then(|object| {
                    let mut missing = missing;
                    missing.find(|name| !object.contains_key(*name))
                }) {
                    return wrong(&format!("lacks {name}"));
                }
            }
            "properties" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    let Some(schema) = says.get(name) else { return wrong(&format!("{name} is not described")) };
                    fits(document, schema, value, &format!("{at}/{name}"))?;
                }
            }
            "enum" | "const" | "additionalProperties" | "dependentRequired" => {}
            unchecked if UNCHECKED.contains(&unchecked) => {}
            unknown => panic!("{at}: `{unknown}` is not checked here"),
        }
    }
    Ok(())
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        unknown => panic!("{unknown} is no type that is used here"),
    }
}

#[test]
fn what_does_not_fit_is_found() {
    let body = |change: fn(&mut Value)| {
        let mut body = serde_json::json!({ "id": "x", "action": "purge", "count": 1 });
        change(&mut body);
        let document = document();
        fits(&document, &serde_json::json!({ "$ref": "#/components/schemas/Done" }), &body, "").is_ok()
    };
    assert!(body(|_| {}));
    assert!(!body(|body| body["action"] = "burn".into()));
    assert!(!body(|body| body["count"] = "1".into()));
    assert!(!body(|body| body["count"] = (-1).into()));
    assert!(!body(|body| body["more"] = 1.into()));
    assert!(!body(|body| drop(body.as_object_mut().expect("an object").remove("id"))));
}
