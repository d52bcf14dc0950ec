// Resend's own package, unmodified: RESEND_BASE_URL and RESEND_API_KEY come from the environment.
import { Resend } from "resend";

const resend = new Resend(process.env.RESEND_API_KEY);
const mail = { from: "Acme <a@acme.test>", to: ["ada@example.test"], subject: "From Node", html: "<p>Hello</p>" };

const good = async (answer) => {
  const { data, error } = await answer;
  if (error) throw new Error(JSON.stringify(error));
  return data;
};
const name = async (answer) => (await answer).error?.name;

const whole = {
  ...mail,
  text: "Hello",
  replyTo: "r@acme.test",
  tags: [{ name: "category", value: "confirm" }],
  headers: { "X-Entity-Ref-ID": "1" },
  attachments: [{ filename: "a.txt", content: Buffer.from("hello"), contentType: "text/plain" }],
};
const sent = await good(resend.emails.send(whole, { idempotencyKey: "node-1" }));
const again = await good(resend.emails.send(whole, { idempotencyKey: "node-1" }));
const listed = await good(resend.emails.list({ limit: 1 }));

const batch = await good(resend.batch.send([{ ...mail, subject: "1" }, { ...mail, subject: "2" }]));
const permissive = await good(
  resend.batch.send([{ ...mail, to: "x" }, { ...mail, subject: "3" }], { batchValidation: "permissive" }),
);

const later = await good(resend.emails.send({ ...mail, subject: "Later", scheduledAt: "in 1 hour" }));
const events = [(await good(resend.emails.get(later.id))).last_event];
await good(resend.emails.update({ id: later.id, scheduledAt: "2030-01-01T00:00:00Z" }));
await good(resend.emails.cancel(later.id));
events.push((await good(resend.emails.get(later.id))).last_event);

const errors = {
  missing: await name(resend.emails.send({ from: mail.from, to: mail.to, subject: "x", html: undefined })),
  bad: await name(resend.emails.send({ ...mail, to: "nobody" })),
  unknown: await name(resend.emails.get("01a20a1c-6691-7617-9162-8017db76123f")),
  key: await name(new Resend("re_wrong").emails.get(sent.id)),
};

console.log(
  JSON.stringify({
    sent: sent.id,
    repeated: again.id === sent.id,
    listed: listed.data[0].id,
    batch: batch.data.length,
    permissive: [permissive.data.length, permissive.errors[0].index],
    events,
    errors,
  }),
);
