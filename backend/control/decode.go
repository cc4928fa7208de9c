package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"
)

// decode reads one flat JSON object into the struct that into points to. It is
// stricter than encoding/json: an unknown field, one that is given twice or in
// another case, bytes that are not UTF-8 and anything after the object are
// refused, because in a request to change something there is no safe guess.
// Nothing at all is an empty object.
func decode(body []byte, into any) error {
	if !utf8.Valid(body) {
		return errors.New("it is not UTF-8")
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	fields := fieldsOf(into)
	seen := map[string]bool{}
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("it is not a JSON object%s", at(dec, err))
	}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return fmt.Errorf("it is not JSON%s", at(dec, err))
		}
		key := t.(string) // the decoder lets only a string stand here
		field, ok := fields[key]
		switch {
		case !ok:
			return fmt.Errorf("unknown field %q", key)
		case seen[key]:
			return fmt.Errorf("field %q is given twice", key)
		}
		seen[key] = true
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return fmt.Errorf("%s: it is not JSON%s", key, at(dec, err))
		}
		if err := set(field, raw); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	if _, err := dec.Token(); err != nil { // the closing brace
		return fmt.Errorf("it is not JSON%s", at(dec, err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("something follows the JSON object at byte %d", dec.InputOffset())
	}
	return nil
}

// at says where decoding stopped, and why.
func at(dec *json.Decoder, err error) string {
	if err == nil {
		return ""
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ": it ends too early"
	}
	return fmt.Sprintf(": %v (at byte %d)", err, dec.InputOffset())
}

// fieldsOf gives the fields that a client may set, by their JSON names.
func fieldsOf(into any) map[string]reflect.Value {
	fields := map[string]reflect.Value{}
	v := reflect.ValueOf(into).Elem()
	for i := range v.NumField() {
		if name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ","); name != "-" {
			fields[name] = v.Field(i)
		}
	}
	return fields
}

func set(field reflect.Value, raw json.RawMessage) error {
	err := json.Unmarshal(raw, field.Addr().Interface())
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return err
	}
	want := "a string"
	if field.Kind() == reflect.Uint64 {
		want = "a whole number, not below zero"
	}
	if len(raw) > 64 {
		raw = append(raw[:64:64], "..."...)
	}
	return fmt.Errorf("want %s, got %s", want, raw)
}
