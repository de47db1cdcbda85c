package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/apache/flink-statefun/statefun-sdk-go/v3/pkg/statefun"
)

var (
	texts   = statefun.TypeNameFrom("interop/texts")
	sums    = statefun.TypeNameFrom("interop/sums")
	values  = statefun.TypeNameFrom("interop/values")
	records = statefun.TypeNameFrom("interop/records")

	noteType = rawType{statefun.TypeNameFrom("interop/note")}
	userType = statefun.MakeJsonType(statefun.TypeNameFrom("interop/user"))
)

// user is what travels as interop/user.
type user struct {
	Name string `json:"name"`
}

// rawType is a type whose values are bytes as they are.
type rawType struct {
	name statefun.TypeName
}

func (t rawType) GetTypeName() statefun.TypeName {
	return t.name
}

func (t rawType) Deserialize(r io.Reader, receiver interface{}) error {
	content, err := io.ReadAll(r)
	if err == nil {
		*receiver.(*[]byte) = content
	}
	return err
}

func (t rawType) Serialize(w io.Writer, data interface{}) error {
	_, err := w.Write(data.([]byte))
	return err
}

func functions(version int) []statefun.StatefulFunctionSpec {
	specs := []statefun.StatefulFunctionSpec{
		spec("interop/greeter", greet, seen),
		spec("interop/values", keepValues, asBool, asInt, asLong, asFloat, asDouble, asString, asNote, asUser),
		spec("interop/keeper", keepWhile, written, called, kept),
		spec("interop/scheduler", schedule),
		spec("interop/forwarder", forward),
		spec("interop/records", record),
		spec("interop/adder", add, sum),
		spec("interop/requests", countRequests),
		spec("interop/failing", fail),
		spec("interop/shared", share, text, number, note),
		spec("statefun.smoke.e2e/command-interpreter-fn", interpret, state),
	}
	if version == 1 {
		return append(specs, spec("interop/changing", change, first))
	}
	return append(specs,
		spec("interop/changing", changed, first, second),
		spec("interop/appeared", appear))
}

func spec(name string, function statefun.StatefulFunctionPointer, states ...statefun.ValueSpec) statefun.StatefulFunctionSpec {
	return statefun.StatefulFunctionSpec{
		FunctionType: statefun.TypeNameFrom(name),
		States:       states,
		Function:     function,
	}
}

// emit emits a value of this type.
func emit(ctx statefun.Context, egress statefun.TypeName, of statefun.SimpleType, value interface{}) {
	ctx.SendEgress(&statefun.GenericEgressBuilder{Target: egress, Value: value, ValueType: of})
}

func emitText(ctx statefun.Context, text string) {
	emit(ctx, texts, statefun.StringType, text)
}

// textOf is a message's text.
func textOf(message statefun.Message) (string, error) {
	if !message.IsString() {
		return "", fmt.Errorf("a %v where a string is wanted", message.ValueTypeName())
	}
	return message.AsString(), nil
}

// words is a message's text, cut into at most this many words, of which it has at least one.
func words(message statefun.Message, most int) ([]string, error) {
	text, err := textOf(message)
	return strings.SplitN(text, " ", most), err
}

func unknown(words []string) error {
	return fmt.Errorf("unknown: %q", strings.Join(words, " "))
}

var seen = statefun.ValueSpec{Name: "seen", ValueType: statefun.Int32Type}

func greet(ctx statefun.Context, message statefun.Message) error {
	name, err := textOf(message)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("Hello %s, for the %dth time", name, increment(ctx, seen))
	if caller := ctx.Caller(); caller != nil {
		ctx.Send(statefun.MessageBuilder{Target: *caller, Value: text})
	}
	emitText(ctx, text)
	return nil
}

var (
	asBool   = statefun.ValueSpec{Name: "as_bool", ValueType: statefun.BoolType}
	asInt    = statefun.ValueSpec{Name: "as_int", ValueType: statefun.Int32Type}
	asLong   = statefun.ValueSpec{Name: "as_long", ValueType: statefun.Int64Type}
	asFloat  = statefun.ValueSpec{Name: "as_float", ValueType: statefun.Float32Type}
	asDouble = statefun.ValueSpec{Name: "as_double", ValueType: statefun.Float64Type}
	asString = statefun.ValueSpec{Name: "as_string", ValueType: statefun.StringType}
	asNote   = statefun.ValueSpec{Name: "as_note", ValueType: noteType}
	asUser   = statefun.ValueSpec{Name: "as_user", ValueType: userType}
)

func keepValues(ctx statefun.Context, message statefun.Message) error {
	switch {
	case message.IsString() && message.AsString() == "!clear":
		for _, spec := range []statefun.ValueSpec{asBool, asInt, asLong, asFloat, asDouble, asString, asNote, asUser} {
			ctx.Storage().Remove(spec)
		}
		return nil
	case message.IsBool():
		return keepValue[bool](ctx, message, asBool)
	case message.IsInt32():
		return keepValue[int32](ctx, message, asInt)
	case message.IsInt64():
		return keepValue[int64](ctx, message, asLong)
	case message.IsFloat32():
		return keepValue[float32](ctx, message, asFloat)
	case message.IsFloat64():
		return keepValue[float64](ctx, message, asDouble)
	case message.IsString():
		return keepValue[string](ctx, message, asString)
	case message.Is(noteType):
		return keepValue[[]byte](ctx, message, asNote)
	case message.Is(userType):
		return keepValue[user](ctx, message, asUser)
	}
	return fmt.Errorf("unknown type: %v", message.ValueTypeName())
}

// keepValue emits what was kept before and what comes, and keeps that.
func keepValue[V any](ctx statefun.Context, message statefun.Message, spec statefun.ValueSpec) error {
	var before, value V
	if err := message.As(spec.ValueType, &value); err != nil {
		return err
	}
	if ctx.Storage().Get(spec, &before) {
		emit(ctx, values, spec.ValueType, before)
	}
	ctx.Storage().Set(spec, value)
	emit(ctx, values, spec.ValueType, value)
	return nil
}

var (
	written = statefun.ValueSpec{
		Name:       "written",
		ValueType:  statefun.StringType,
		Expiration: statefun.ExpireAfterWrite(time.Second),
	}
	called = statefun.ValueSpec{
		Name:       "called",
		ValueType:  statefun.StringType,
		Expiration: statefun.ExpireAfterCall(time.Second),
	}
	kept = statefun.ValueSpec{Name: "kept", ValueType: statefun.StringType}
)

func keepWhile(ctx statefun.Context, message statefun.Message) error {
	words, err := words(message, 2)
	switch {
	case err != nil:
		return err
	case words[0] == "set" && len(words) == 2:
		for _, spec := range []statefun.ValueSpec{written, called, kept} {
			ctx.Storage().Set(spec, words[1])
		}
	case words[0] == "get" && len(words) == 1:
		written, called, kept := getText(ctx, written), getText(ctx, called), getText(ctx, kept)
		emitText(ctx, fmt.Sprintf("written=%s called=%s kept=%s", written, called, kept))
	case words[0] == "poke" && len(words) == 1:
	default:
		return unknown(words)
	}
	return nil
}

// getText is the text of a state, or "-" if it is not set.
func getText(ctx statefun.Context, spec statefun.ValueSpec) string {
	text := "-"
	ctx.Storage().Get(spec, &text)
	return text
}

func schedule(ctx statefun.Context, message statefun.Message) error {
	words, err := words(message, 4)
	switch {
	case err != nil:
		return err
	case words[0] == "after" && len(words) == 4:
		ms, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil {
			return err
		}
		delay := time.Duration(ms) * time.Millisecond
		fired := statefun.MessageBuilder{Target: ctx.Self(), Value: "fired " + words[3]}
		if words[2] == "-" {
			ctx.SendAfter(delay, fired)
			return nil
		}
		token, err := statefun.NewCancellationToken(words[2])
		if err != nil {
			return err
		}
		ctx.SendAfterWithCancellationToken(delay, token, fired)
	case words[0] == "cancel" && len(words) == 2:
		token, err := statefun.NewCancellationToken(words[1])
		if err != nil {
			return err
		}
		ctx.CancelDelayedMessage(token)
	case words[0] == "fired" && len(words) > 1:
		emitText(ctx, strings.Join(words[1:], " "))
	default:
		return unknown(words)
	}
	return nil
}

func forward(ctx statefun.Context, message statefun.Message) error {
	words, err := words(message, 3)
	if err != nil {
		return err
	}
	if len(words) < 3 {
		return unknown(words)
	}
	function, err := statefun.ParseTypeName(words[0])
	if err != nil {
		return err
	}
	target := statefun.Address{FunctionType: function, Id: words[1]}
	ctx.Send(statefun.MessageBuilder{Target: target, Value: words[2]})
	return nil
}

func record(ctx statefun.Context, message statefun.Message) error {
	words, err := words(message, 4)
	switch {
	case err != nil:
		return err
	case len(words) == 4 && words[0] == "kafka":
		ctx.SendEgress(&statefun.KafkaEgressBuilder{
			Target: records,
			Topic:  words[1],
			Key:    words[2],
			Value:  words[3],
		})
	case len(words) == 4 && words[0] == "kinesis":
		ctx.SendEgress(&statefun.KinesisEgressBuilder{
			Target:       records,
			Stream:       words[1],
			PartitionKey: words[2],
			Value:        words[3],
		})
	default:
		return unknown(words)
	}
	return nil
}

var sum = statefun.ValueSpec{Name: "sum", ValueType: statefun.Int32Type}

func add(ctx statefun.Context, message statefun.Message) error {
	if !message.IsInt32() {
		return fmt.Errorf("a %v where an int is wanted", message.ValueTypeName())
	}
	var total int32
	ctx.Storage().Get(sum, &total)
	total += message.AsInt32()
	ctx.Storage().Set(sum, total)
	emit(ctx, sums, statefun.Int32Type, total)
	return nil
}

func countRequests(ctx statefun.Context, _ statefun.Message) error {
	emit(ctx, sums, statefun.Int32Type, requests.Load())
	return nil
}

func fail(ctx statefun.Context, message statefun.Message) error {
	text, err := textOf(message)
	if err == nil && text == "fail" {
		err = errors.New("it was told to fail")
	}
	if err == nil {
		emitText(ctx, text)
	}
	return err
}

var (
	text   = statefun.ValueSpec{Name: "text", ValueType: statefun.StringType}
	number = statefun.ValueSpec{Name: "number", ValueType: statefun.Int32Type}
	note   = statefun.ValueSpec{Name: "note", ValueType: noteType}
)

func share(ctx statefun.Context, message statefun.Message) error {
	words, err := words(message, 3)
	switch {
	case err != nil:
		return err
	case words[0] == "write" && len(words) == 3:
		parsed, err := strconv.ParseInt(words[2], 10, 32)
		if err != nil {
			return err
		}
		ctx.Storage().Set(text, words[1])
		ctx.Storage().Set(number, int32(parsed))
		ctx.Storage().Set(note, []byte(words[1]))
	case words[0] == "read" && len(words) == 1:
		numberText, noteText := "-", []byte("-")
		var found int32
		if ctx.Storage().Get(number, &found) {
			numberText = strconv.Itoa(int(found))
		}
		ctx.Storage().Get(note, &noteText)
		emitText(ctx, fmt.Sprintf("%s %s %s", getText(ctx, text), numberText, noteText))
	default:
		return unknown(words)
	}
	return nil
}

var (
	first  = statefun.ValueSpec{Name: "first", ValueType: statefun.Int32Type}
	second = statefun.ValueSpec{Name: "second", ValueType: statefun.Int32Type}
)

// increment counts one more in a state, and returns the new count.
func increment(ctx statefun.Context, spec statefun.ValueSpec) int32 {
	var count int32
	ctx.Storage().Get(spec, &count)
	ctx.Storage().Set(spec, count+1)
	return count + 1
}

// change is what interop/changing was in version 1.
func change(ctx statefun.Context, _ statefun.Message) error {
	emitText(ctx, fmt.Sprintf("first=%d second=-", increment(ctx, first)))
	return nil
}

// changed is what it is in version 2.
func changed(ctx statefun.Context, _ statefun.Message) error {
	emitText(ctx, fmt.Sprintf("first=%d second=%d", increment(ctx, first), increment(ctx, second)))
	return nil
}

func appear(ctx statefun.Context, message statefun.Message) error {
	text, err := textOf(message)
	if err == nil {
		emitText(ctx, "appeared "+text)
	}
	return err
}
