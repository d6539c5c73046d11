/// \file  The keywords of JSON schemas: which are enforced, which are refused, and what their values may be.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/json/bounded_json.hpp>
#include <lmd/text/grammar_budget.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace lmd::text::detail {

/// \throws Error(kConfig): `what` in a JSON schema is not supported.
inline void refuse_schema_if(bool is_bad, const std::string& what) {
  LMD_REQUIRE(!is_bad, ErrorCode::kConfig,
              "grammar: " + what + " in a JSON schema is not supported");
}

/// A set of types, one bit each. Integers are numbers, too.
using JsonTypes = std::uint32_t;
inline constexpr JsonTypes kJsonNull = 1, kJsonBoolean = 2, kJsonInteger = 4, kJsonNumber = 8,
                           kJsonString = 16, kJsonArray = 32, kJsonObject = 64, kAllJsonTypes = 127;
inline constexpr std::pair<const char*, JsonTypes> kJsonTypeNames[] = {
    {"null", kJsonNull},     {"boolean", kJsonBoolean}, {"integer", kJsonInteger},
    {"number", kJsonNumber}, {"string", kJsonString},   {"array", kJsonArray},
    {"object", kJsonObject},
};

/// \param value  of `type`: a name or a list of names
[[nodiscard]] inline JsonTypes types_of(const json::OrderedJson& value) {
  JsonTypes types = 0;
  const auto add = [&](const json::OrderedJson& name) {
    const auto* const at = std::find_if(std::begin(kJsonTypeNames), std::end(kJsonTypeNames),
                                        [&](const auto& known) { return name == known.first; });
    refuse_schema_if(at == std::end(kJsonTypeNames), "an unknown type");
    types |= at->second;
  };
  if (!value.is_array()) add(value);
  if (value.is_array()) {
    for (const json::OrderedJson& name : value)
      add(name);
  }
  return types;
}

[[nodiscard]] inline json::OrderedJson type_names(JsonTypes types) {
  json::OrderedJson names = json::OrderedJson::array();
  for (const auto& [name, type] : kJsonTypeNames) {
    if ((types & type) != 0) names.push_back(name);
  }
  return names;
}

[[nodiscard]] inline JsonTypes common_types(JsonTypes a, JsonTypes b) {
  const auto with_integers = [](JsonTypes types) {
    return (types & kJsonNumber) != 0 ? types | kJsonInteger : types;
  };
  return with_integers(a) & with_integers(b);
}

/// The narrowest type. A number without a fraction counts as an integer.
[[nodiscard]] inline JsonTypes type_of_value(const json::OrderedJson& value) {
  if (value.is_null()) return kJsonNull;
  if (value.is_boolean()) return kJsonBoolean;
  if (value.is_number()) {
    const auto number = value.get<double>();
    return std::floor(number) == number ? kJsonInteger : kJsonNumber;
  }
  if (value.is_string()) return kJsonString;
  return value.is_array() ? kJsonArray : kJsonObject;
}

[[nodiscard]] inline bool has_type(const json::OrderedJson& value, JsonTypes types) {
  const JsonTypes type = type_of_value(value);
  return (types & type) != 0 || (type == kJsonInteger && (types & kJsonNumber) != 0);
}

/// What the value of a keyword must be.
enum class KeywordValue : std::uint8_t {
  kAny,
  kBoolean,
  kCount,  ///< an integer from 0 on
  kNumber,
  kString,
  kStrings,
  kNames,  ///< a string or a list of strings
  kList,   ///< not empty
  kSchema,
  kSchemas,  ///< a list, not empty
  kSchemaMap,
  kItems,  ///< a schema, or a list of schemas
};

struct SchemaKeyword {
  const char* name;
  KeywordValue value;
  JsonTypes types;  ///< what it speaks of; 0: of all
};

/// The keywords that are enforced.
inline constexpr SchemaKeyword kSchemaKeywords[] = {
    {"$ref", KeywordValue::kString, 0},
    {"allOf", KeywordValue::kSchemas, 0},
    {"anyOf", KeywordValue::kSchemas, 0},
    {"oneOf", KeywordValue::kSchemas, 0},
    {"type", KeywordValue::kNames, 0},
    {"enum", KeywordValue::kList, 0},
    {"const", KeywordValue::kAny, 0},
    {"nullable", KeywordValue::kBoolean, 0},
    {"minLength", KeywordValue::kCount, kJsonString},
    {"maxLength", KeywordValue::kCount, kJsonString},
    {"pattern", KeywordValue::kString, kJsonString},
    {"format", KeywordValue::kString, 0},
    {"minimum", KeywordValue::kNumber, kJsonNumber},
    {"maximum", KeywordValue::kNumber, kJsonNumber},
    {"exclusiveMinimum", KeywordValue::kNumber, kJsonNumber},
    {"exclusiveMaximum", KeywordValue::kNumber, kJsonNumber},
    {"properties", KeywordValue::kSchemaMap, kJsonObject},
    {"required", KeywordValue::kStrings, kJsonObject},
    {"additionalProperties", KeywordValue::kSchema, kJsonObject},
    {"patternProperties", KeywordValue::kSchemaMap, kJsonObject},
    {"minProperties", KeywordValue::kCount, kJsonObject},
    {"maxProperties", KeywordValue::kCount, kJsonObject},
    {"items", KeywordValue::kItems, kJsonArray},
    {"prefixItems", KeywordValue::kSchemas, kJsonArray},
    {"additionalItems", KeywordValue::kSchema, kJsonArray},
    {"minItems", KeywordValue::kCount, kJsonArray},
    {"maxItems", KeywordValue::kCount, kJsonArray},
};

/// Keywords that say something that is not enforced. All others are annotations.
inline constexpr const char* kRefusedKeywords[] = {
    "not",
    "if",
    "then",
    "else",
    "contains",
    "minContains",
    "maxContains",
    "uniqueItems",
    "multipleOf",
    "propertyNames",
    "dependencies",
    "dependentRequired",
    "$dynamicRef",
    "$recursiveRef",
    "dependentSchemas",
    "unevaluatedItems",
    "unevaluatedProperties",
};

[[nodiscard]] inline const SchemaKeyword* find_keyword(std::string_view name) {
  const auto* const at =
      std::find_if(std::begin(kSchemaKeywords), std::end(kSchemaKeywords),
                   [&](const SchemaKeyword& known) { return name == known.name; });
  return at == std::end(kSchemaKeywords) ? nullptr : at;
}
/// The types of values that are made of a plain schema: those named, else those that its keywords speak of, else all.
[[nodiscard]] inline JsonTypes types_made(const json::OrderedJson& schema) {
  if (schema.contains("type")) return types_of(schema["type"]);
  JsonTypes types = 0;
  for (const auto& [key, unused] : schema.items())
    types |= find_keyword(key)->types;
  return types == 0 ? kAllJsonTypes : types;
}
[[nodiscard]] inline bool is_assertion(std::string_view name) {
  return find_keyword(name) != nullptr;
}
[[nodiscard]] inline bool is_combination(std::string_view name) {
  return name == "$ref" || name == "allOf" || name == "anyOf" || name == "oneOf";
}

[[nodiscard]] inline bool has_form(const json::OrderedJson& value, KeywordValue form) {
  const auto is_string = [](const json::OrderedJson& v) { return v.is_string(); };
  const auto is_schema = [](const json::OrderedJson& v) { return v.is_object() || v.is_boolean(); };
  const auto all = [&](const auto& test) { return std::all_of(value.begin(), value.end(), test); };
  switch (form) {
    case KeywordValue::kAny:
      return true;
    case KeywordValue::kBoolean:
      return value.is_boolean();
    case KeywordValue::kCount:
      return value.is_number() && value.get<double>() >= 0.0 && value.get<double>() < 1e9 &&
             std::floor(value.get<double>()) == value.get<double>();
    case KeywordValue::kNumber:
      return value.is_number();
    case KeywordValue::kString:
      return value.is_string();
    case KeywordValue::kStrings:
      return value.is_array() && all(is_string);
    case KeywordValue::kNames:
      return value.is_string() || (value.is_array() && !value.empty() && all(is_string));
    case KeywordValue::kList:
      return value.is_array() && !value.empty();
    case KeywordValue::kSchema:
      return is_schema(value);
    case KeywordValue::kSchemas:
      return value.is_array() && !value.empty() && all(is_schema);
    case KeywordValue::kSchemaMap:
      return value.is_object() && all(is_schema);
    case KeywordValue::kItems:
      return is_schema(value) || (value.is_array() && all(is_schema));
  }
  return false;
}

/// \throws Error(kConfig) naming a keyword that is not supported, or whose value has not the form that it must have.
inline void check_keywords(const json::OrderedJson& schema) {
  refuse_schema_if(!schema.is_object() && !schema.is_boolean(),
                   "a schema that is neither an object nor a boolean");
  if (schema.is_boolean()) return;
  for (const auto& [key, value] : schema.items()) {
    for (const char* refused : kRefusedKeywords) {
      if (key != refused) continue;
      const bool says_nothing = (key == "uniqueItems" && value == false) ||
                                (key.starts_with("unevaluated") && value == true);
      refuse_schema_if(!says_nothing, refused);
    }
    if (const SchemaKeyword* known = find_keyword(key)) {
      refuse_schema_if(!has_form(value, known->value),
                       "such a value of " + std::string(known->name));
    }
  }
}

/// \throws Error(kConfig) when it is no JSON, too long, nested deeper than schemas may be, or has a key twice in one
///         object.
[[nodiscard]] inline json::OrderedJson parse_schema(std::string_view text, GrammarMeter& meter) {
  LMD_REQUIRE(text.size() <= meter.budget().text_bytes, ErrorCode::kConfig,
              "grammar: a JSON schema of " + std::to_string(text.size()) + " bytes, at most " +
                  std::to_string(meter.budget().text_bytes) + " are taken");
  meter.spend(text.size());
  try {
    // Of values and of bytes of a key there are as many as the text has room for.
    return json::parse_bounded(
        text, {.values = static_cast<std::int64_t>(text.size()), .key_bytes = text.size()});
  } catch (const Error& e) {
    throw Error(ErrorCode::kConfig, std::string("grammar: JSON schema ") + e.what());
  }
}

}  // namespace lmd::text::detail
