package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/apache/flink-statefun/statefun-sdk-go/v3/pkg/statefun"
	"google.golang.org/protobuf/encoding/protowire"
)

// The command interpreter of StateFun's smoke test. Its messages are those of
// examples/smoke/commands.proto, read and written field by field.
var (
	commandsType = rawType{statefun.TypeNameFrom("statefun.smoke.e2e/commands")}
	resultType   = rawType{statefun.TypeNameFrom("statefun.smoke.e2e/verification-result")}
	discards     = statefun.TypeNameFrom("statefun.smoke.e2e/discard-sink")
	results      = statefun.TypeNameFrom("statefun.smoke.e2e/verification-sink")

	state = statefun.ValueSpec{Name: "state", ValueType: statefun.Int64Type}
)

func interpret(ctx statefun.Context, message statefun.Message) error {
	if !message.Is(commandsType) {
		return fmt.Errorf("a %v where commands are wanted", message.ValueTypeName())
	}
	return fields(message.RawValue(), func(field protowire.Number, command []byte, _ uint64) error {
		if field != 1 {
			return nil
		}
		return fields(command, func(kind protowire.Number, content []byte, _ uint64) error {
			return follow(ctx, kind, content)
		})
	})
}

// follow does what one command says.
func follow(ctx statefun.Context, kind protowire.Number, content []byte) error {
	number, commands := int64(0), []byte{}
	err := fields(content, func(field protowire.Number, message []byte, value uint64) error {
		switch field {
		case 1:
			number = int64(value)
		case 2:
			commands = message
		}
		return nil
	})
	if err != nil {
		return err
	}
	target := statefun.Address{FunctionType: ctx.Self().FunctionType, Id: strconv.FormatInt(number, 10)}
	onward := statefun.MessageBuilder{Target: target, Value: commands, ValueType: commandsType}
	switch kind {
	case 1:
		var count int64
		ctx.Storage().Get(state, &count)
		ctx.Storage().Set(state, count+1)
	case 2:
		ctx.Send(onward)
	case 3:
		ctx.SendAfter(time.Millisecond, onward)
	case 4:
		emit(ctx, discards, statefun.StringType, "discarded")
	case 6:
		var actual int64
		ctx.Storage().Get(state, &actual)
		id, err := strconv.ParseInt(ctx.Self().Id, 10, 32)
		if err != nil {
			return err
		}
		var result []byte
		for at, number := range []int64{id, number, actual} {
			if number != 0 {
				result = protowire.AppendTag(result, protowire.Number(at+1), protowire.VarintType)
				result = protowire.AppendVarint(result, uint64(number))
			}
		}
		emit(ctx, results, resultType, result)
	default:
		return fmt.Errorf("unknown command %d", kind)
	}
	return nil
}

// fields shows each field of a message: its bytes, or its number.
func fields(message []byte, show func(protowire.Number, []byte, uint64) error) error {
	for len(message) > 0 {
		field, wire, length := protowire.ConsumeTag(message)
		if length < 0 {
			return protowire.ParseError(length)
		}
		message = message[length:]
		var content []byte
		var number uint64
		switch wire {
		case protowire.VarintType:
			number, length = protowire.ConsumeVarint(message)
		case protowire.BytesType:
			content, length = protowire.ConsumeBytes(message)
		default:
			length = protowire.ConsumeFieldValue(field, wire, message)
		}
		if length < 0 {
			return protowire.ParseError(length)
		}
		message = message[length:]
		if err := show(field, content, number); err != nil {
			return err
		}
	}
	return nil
}
