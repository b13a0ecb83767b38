//! The OpenAPI 3.1 document: every route, and those that predict once more for each model, with its own tensors.

use gristmill_engine::request::ModelInfo;
use serde_json::{Map, Value, json};

use super::operations::{Answers, OPERATIONS, Operation, Takes};
use super::{Described, bodies, path_segment};

pub(super) fn document(models: &[Described]) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    let mut add = |path: String, operation: &Operation, described: Value| {
        let method = operation.method.to_ascii_lowercase();
        paths.entry(path).or_insert_with(|| json!({}))[method] = described;
    };
    for operation in OPERATIONS {
        add(operation.path.to_owned(), operation, of_any_model(operation, models));
    }
    for Described { model, .. } in models {
        for operation in OPERATIONS.iter().filter(|operation| operation.is_for(model)) {
            let path = operation.path.replace("{model}", &path_segment(&model.name));
            add(path, operation, of_model(operation, model));
        }
    }
    let mut tags: Vec<&str> = OPERATIONS.iter().map(|operation| operation.dialect).collect();
    tags.dedup();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Gristmill",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Predictions of ONNX models, in the dialects of several servers. Paths that name a model \
                            are described with its own tensors.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": tags.into_iter().map(|name| json!({"name": name})).collect::<Value>(),
        "paths": paths,
        "components": {
            "responses": {"Refusal": {
                "description": "The request was refused: the body says why, in the form of its dialect",
                "content": {"application/json": {"schema": {}}, "text/plain": {"schema": {"type": "string"}}},
            }},
            "schemas": {
                "Tensors": tensors_schema(),
                "Features": any_of(&["features", "instances"]),
                "Instances": any_of(&["instances", "inputs"]),
                "Examples": any_of(&["examples"]),
                "Frame": any_of(&["dataframe_split", "dataframe_records", "instances", "inputs"]),
            },
        },
    })
}

/// As the table has it, with parameters in its path.
fn of_any_model(operation: &Operation, models: &[Described]) -> Value {
    let mut described = json!({
        "operationId": operation.id(),
        "tags": [operation.dialect],
        "summary": operation.summary,
        "responses": responses(operation.answers, json!({})),
    });
    let parameters: Vec<Value> = operation
        .path
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split_once('}'))
        .map(|(name, _)| parameter(name, operation, models))
        .collect();
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    if let Some((schema, required)) = body_schema(operation.takes) {
        let content = bodies::content(json!({"schema": schema}), bodies::besides_json(operation.takes));
        described["requestBody"] = json!({"required": required, "content": content});
    }
    described
}

/// For the version of `model` that serves by default.
fn of_model(operation: &Operation, model: &ModelInfo) -> Value {
    let specs = |specs: &[gristmill_engine::tensor::TensorSpec]| {
        specs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    json!({
        "operationId": format!("{}_of_{}", operation.id(), path_segment(&model.name)),
        "tags": [operation.dialect],
        "summary": format!("{}: {}", model.name, operation.summary),
        "description": format!(
            "Version {} of model {}. Inputs: {}. Outputs: {}.",
            model.version,
            model.name,
            specs(&model.signature.inputs),
            specs(&model.signature.outputs)
        ),
        "requestBody": {"required": true, "content": bodies::content_of(model, operation.takes)},
        "responses": responses(operation.answers, bodies::answer_schema(model, operation.takes)),
    })
}

/// `schema` is that of JSON.
fn responses(answers: Answers, schema: Value) -> Value {
    let refusal = json!({"$ref": "#/components/responses/Refusal"});
    let text = json!({"schema": {"type": "string"}});
    let content = match answers {
        Answers::Json => json!({"application/json": {"schema": schema}}),
        Answers::Text => json!({"text/plain": text}),
        Answers::Events => json!({"text/event-stream": text}),
        Answers::Html => json!({"text/html": text}),
        Answers::JsonOrHtml => json!({"application/json": {"schema": schema}, "text/html": text}),
        Answers::Unsupported => return json!({"501": refusal, "default": refusal}),
    };
    json!({"200": {"description": "Done", "content": content}, "default": refusal})
}

fn parameter(name: &str, operation: &Operation, models: &[Described]) -> Value {
    let schema = match name {
        "model" => {
            let names: Vec<&str> = models.iter().map(|described| described.model.name.as_str()).collect();
            json!({"type": "string", "minLength": 1, "examples": names})
        }
        "version" if operation.path.starts_with("/v1/") => json!({"type": "integer", "minimum": 1}),
        _ => json!({"type": "string", "minLength": 1}),
    };
    let description = match name {
        "model" => "The name of a model",
        "version" if operation.path.starts_with("/v1/") => "A version's number",
        "version" => "A version's number, or a label",
        "route" => "The name of a route",
        "region" => "The name of a region of shared memory",
        _ => "A label of a version",
    };
    json!({"name": name, "in": "path", "required": true, "description": description, "schema": schema})
}

/// What any model's body is like, and whether there must be one.
fn body_schema(takes: Takes) -> Option<(Value, bool)> {
    let component = |name: &str| (json!({"$ref": format!("#/components/schemas/{name}")}), true);
    let optional = |properties: Value| (json!({"type": "object", "properties": properties}), false);
    Some(match takes {
        Takes::Nothing => return None,
        Takes::Tensors => component("Tensors"),
        Takes::Features => component("Features"),
        Takes::Instances | Takes::OnlyInstances => component("Instances"),
        Takes::Examples => component("Examples"),
        Takes::Rows => (json!({"type": ["array", "object"]}), true),
        Takes::Frame => component("Frame"),
        Takes::Index => optional(json!({"ready": {"type": "boolean"}})),
        Takes::Order => optional(json!({"parameters": {"type": "object"}})),
        Takes::Reason => optional(json!({"reason": {"type": "string"}})),
        Takes::Label => optional(json!({
            "label": {"type": "string"},
            "version": {"type": "integer", "minimum": 0, "description": "0 takes the label away"},
        })),
        Takes::Route => optional(json!({
            "policy": {"type": "string", "enum": ["split", "canary", "fallback"]},
            "key": {"type": "string", "description": "header, request_id or parameter:NAME"},
            "salt": {"type": "string"},
            "arms": {"type": "array", "items": {
                "type": "object",
                "required": ["model"],
                "properties": {
                    "name": {"type": "string"},
                    "model": {"type": "string"},
                    "version": {"type": "integer", "minimum": 0, "description": "0 for the default or the label"},
                    "label": {"type": "string"},
                    "weight": {"type": "number", "minimum": 0, "maximum": 100, "description": "percent"},
                },
            }},
            "shadows": {"type": "array", "items": {
                "type": "object",
                "required": ["model"],
                "properties": {
                    "name": {"type": "string"},
                    "model": {"type": "string"},
                    "version": {"type": "integer", "minimum": 0, "description": "0 for the default or the label"},
                    "label": {"type": "string"},
                    "percent": {"type": "number", "minimum": 0, "maximum": 100, "description": "of the keys"},
                    "absolute": {"type": "number", "minimum": 0, "description": "tolerance"},
                    "relative": {"type": "number", "minimum": 0, "description": "tolerance"},
                    "keep_inputs": {"type": "boolean"},
                },
            }},
            "canary": {"type": "object", "properties": {
                "steps": {"type": "array", "items": {
                    "type": "object",
                    "required": ["percent"],
                    "properties": {
                        "percent": {"type": "number", "minimum": 0, "maximum": 100},
                        "time_s": {"type": "number", "minimum": 0},
                        "requests": {"type": "integer", "minimum": 0},
                    },
                }},
                "error_rate_increase_max": {"type": "number", "minimum": 0, "maximum": 1},
                "error_rate_max": {"type": "number", "minimum": 0, "maximum": 1},
                "p50_ratio_max": {"type": "number"},
                "p99_ratio_max": {"type": "number"},
                "mismatch_rate_max": {"type": "number", "minimum": 0, "maximum": 1},
                "reward_decrease_max": {"type": "number", "minimum": 0, "maximum": 1},
                "rewards_min": {"type": "integer", "minimum": 20},
                "confidence": {"type": "number", "minimum": 0.5, "maximum": 0.999999},
            }},
        })),
        Takes::Feedback => optional(json!({
            "feedback": {"type": "array", "items": {
                "type": "object",
                "required": ["prediction_id"],
                "properties": {
                    "prediction_id": {"type": "string"},
                    "reward": {"type": "number"},
                    "truth": {"description": "what the answer ought to have been"},
                },
            }},
        })),
        Takes::Generate => (json!({"type": "object"}), true),
        Takes::LogSettings => optional(json!({
            "log_info": {"type": "boolean"},
            "log_warning": {"type": "boolean"},
            "log_error": {"type": "boolean"},
            "log_verbose_level": {"type": "integer", "minimum": 0, "description": "1 for debug, 2 for everything"},
        })),
        Takes::TraceSettings => optional(json!({
            "trace_level": {"type": "array", "items": {"enum": ["OFF", "TIMESTAMPS"]}, "maxItems": 1},
            "trace_rate": {"type": ["string", "null"], "description": "one of so many requests; null as at the start"},
        })),
        Takes::Region => optional(json!({
            "key": {"type": "string", "description": "the name of a file in /dev/shm"},
            "offset": {"type": "integer", "minimum": 0},
            "byte_size": {"type": "integer", "minimum": 1},
        })),
        Takes::DeviceRegion => optional(json!({
            "raw_handle": {"type": "object", "properties": {"b64": {"type": "string", "description": "as cudaIpcGetMemHandle gives it"}}},
            "device_id": {"type": "integer", "minimum": 0},
            "byte_size": {"type": "integer", "minimum": 1},
        })),
        Takes::Promotion => optional(json!({
            "arm": {"type": "string"},
            "weight": {"type": "number", "minimum": 0, "maximum": 100, "description": "percent; everything if left out"},
        })),
    })
}

fn tensors_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": {"type": "array", "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "datatype": {"enum": gristmill_engine::tensor::DType::ALL.map(|dtype| dtype.name())},
                    "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                    "data": {"type": "array"},
                    "parameters": {"type": "object"},
                },
                "required": ["name", "datatype", "shape"],
            }},
            "outputs": {"type": "array", "items": {"type": "object", "required": ["name"]}},
        },
        "required": ["inputs"],
    })
}

/// An object that has one of `fields`.
fn any_of(fields: &[&str]) -> Value {
    let has = |field: &&str| json!({"type": "object", "required": [field]});
    json!({"anyOf": fields.iter().map(has).collect::<Vec<_>>()})
}
