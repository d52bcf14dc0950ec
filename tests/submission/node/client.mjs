// nodemailer, unmodified, with everything that an application gives it; prints what it was told.
import nodemailer from "nodemailer";

const auth = { user: "mailer", pass: process.env.KEY };
const transport = nodemailer.createTransport({ host: "127.0.0.1", port: Number(process.env.PORT), auth, pool: true });
const mail = { from: "Acme <a@acme.test>", to: "Ada <ada@example.test>", text: "Grüße" };

const whole = await transport.sendMail({
  ...mail,
  subject: "From Node: Grüße 🎉",
  cc: "c@example.test",
  bcc: "d@example.test",
  replyTo: "r@acme.test",
  text: "a word ".repeat(30) + "\nGrund",
  html: '<p>Grüße <img src="cid:logo"></p>',
  headers: { "X-A": "ä", "Idempotency-Key": "node" },
  list: { unsubscribe: { url: "https://acme.test/u" } },
  inReplyTo: "<1@x.test>",
  references: ["<0@x.test>", "<1@x.test>"],
  attachments: [
    { filename: "Grüße.txt", content: "hällo" },
    { filename: "logo.png", content: Buffer.from("hi"), cid: "logo" },
  ],
});
const many = await Promise.all([...Array(10).keys()].map((n) => transport.sendMail({ ...mail, subject: `Many ${n}` })));

async function refused(change) {
  try {
    await transport.sendMail({ ...mail, subject: "Refused", ...change });
  } catch (error) {
    return [error.code, error.responseCode];
  }
}
const errors = {
  invitation: await refused({ icalEvent: { method: "REQUEST", content: "BEGIN:VCALENDAR" } }),
  repeated: await refused({ headers: { "Idempotency-Key": "node" } }),
};
transport.close();
console.log(JSON.stringify({ response: whole.response, many: many.length, errors }));
