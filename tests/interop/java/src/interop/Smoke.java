package interop;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import org.apache.flink.statefun.sdk.java.Context;
import org.apache.flink.statefun.sdk.java.TypeName;
import org.apache.flink.statefun.sdk.java.ValueSpec;
import org.apache.flink.statefun.sdk.java.message.Message;
import org.apache.flink.statefun.sdk.java.message.MessageBuilder;
import org.apache.flink.statefun.sdk.java.types.SimpleType;
import org.apache.flink.statefun.sdk.java.types.Type;
import org.apache.flink.statefun.sdk.java.types.Types;
import org.apache.flink.statefun.sdk.shaded.com.google.protobuf.CodedInputStream;
import org.apache.flink.statefun.sdk.shaded.com.google.protobuf.CodedOutputStream;
import org.apache.flink.statefun.sdk.shaded.com.google.protobuf.WireFormat;

/**
 * The command interpreter of StateFun's smoke test. Its messages are those of
 * examples/smoke/commands.proto, read and written field by field.
 */
final class Smoke {
  static final String NAME = "statefun.smoke.e2e/command-interpreter-fn";
  static final ValueSpec<Long> STATE = ValueSpec.named("state").withLongType();

  private static final Type<byte[]> COMMANDS = bytesAsTheyAre("statefun.smoke.e2e/commands");
  private static final Type<byte[]> RESULT =
      bytesAsTheyAre("statefun.smoke.e2e/verification-result");
  private static final TypeName DISCARDS =
      TypeName.typeNameFromString("statefun.smoke.e2e/discard-sink");
  private static final TypeName RESULTS =
      TypeName.typeNameFromString("statefun.smoke.e2e/verification-sink");
  private static final Duration DELAY = Duration.ofMillis(1);

  private Smoke() {}

  private static Type<byte[]> bytesAsTheyAre(String name) {
    return SimpleType.simpleTypeFrom(
        TypeName.typeNameFromString(name), bytes -> bytes, bytes -> bytes);
  }

  static void interpret(Context context, Message message) {
    try {
      // Commands, of which field 1 is a command, of which one field is there.
      fields(
          message.as(COMMANDS),
          (field, command, number) -> {
            if (field == 1) {
              fields(command, (kind, content, ignored) -> follow(context, kind, content));
            }
          });
    } catch (IOException malformed) {
      throw new UncheckedIOException(malformed);
    }
  }

  /** Does what one command says. */
  private static void follow(Context context, int kind, byte[] content) throws IOException {
    // Commands have a target and commands for it, or one number.
    long[] number = {0};
    byte[][] commands = {new byte[0]};
    fields(
        content,
        (field, bytes, value) -> {
          switch (field) {
            case 1 -> number[0] = value;
            case 2 -> commands[0] = bytes;
            default -> {}
          }
        });
    switch (kind) {
      case 1 -> context.storage().set(STATE, count(context) + 1);
      case 2 -> context.send(onward(context, number[0], commands[0]));
      case 3 -> context.sendAfter(DELAY, onward(context, number[0], commands[0]));
      case 4 -> Functions.emit(context, DISCARDS, Types.stringType(), "discarded");
      case 6 -> Functions.emit(context, RESULTS, RESULT, result(context, number[0]));
      default -> throw new IllegalArgumentException("unknown command: " + kind);
    }
  }

  private static long count(Context context) {
    return context.storage().get(STATE).orElse(0L);
  }

  private static Message onward(Context context, long target, byte[] commands) {
    return MessageBuilder.forAddress(context.self().type(), Long.toString(target))
        .withCustomType(COMMANDS, commands)
        .build();
  }

  private static byte[] result(Context context, long expected) throws IOException {
    long[] numbers = {Long.parseLong(context.self().id()), expected, count(context)};
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    CodedOutputStream out = CodedOutputStream.newInstance(bytes);
    for (int at = 0; at < numbers.length; at++) {
      if (numbers[at] != 0) {
        out.writeInt64(at + 1, numbers[at]);
      }
    }
    out.flush();
    return bytes.toByteArray();
  }

  /** A field of a message: its bytes, or its number. */
  private interface Field {
    void is(int field, byte[] bytes, long number) throws IOException;
  }

  private static void fields(byte[] message, Field show) throws IOException {
    CodedInputStream in = CodedInputStream.newInstance(message);
    for (int tag = in.readTag(); tag != 0; tag = in.readTag()) {
      int field = WireFormat.getTagFieldNumber(tag);
      switch (WireFormat.getTagWireType(tag)) {
        case WireFormat.WIRETYPE_VARINT -> show.is(field, null, in.readInt64());
        case WireFormat.WIRETYPE_LENGTH_DELIMITED -> show.is(field, in.readByteArray(), 0);
        default -> in.skipField(tag);
      }
    }
  }
}
