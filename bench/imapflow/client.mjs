// imapflow with mailparser, as a helpdesk uses them: a connection a mailbox, fetch what is there, parse each mail.
// node client.mjs '{"port":…,"ca":FILE,"password":…,"accounts":FILE,"sessions":N,"mode":"fetch"|"poll","polls":N}'
import { readFileSync } from 'node:fs';
import { ImapFlow } from 'imapflow';
import { simpleParser } from 'mailparser';

const options = JSON.parse(process.argv[2]);
const accounts = readFileSync(options.accounts, 'utf8').split('\n').filter(Boolean);
const ca = readFileSync(options.ca);
const totals = { mails: 0, bytes: 0, polls: 0, attachments: 0 };

async function run(account) {
  const client = new ImapFlow({
    host: 'localhost', port: options.port, secure: true, logger: false,
    auth: { user: account, pass: options.password }, tls: { ca },
  });
  await client.connect();
  const box = await client.mailboxOpen('INBOX', { readOnly: true });
  if (options.mode === 'fetch' && box.exists > 0) {
    for await (const message of client.fetch('1:*', { uid: true, flags: true, internalDate: true, source: true })) {
      const mail = await simpleParser(message.source);
      totals.mails += 1;
      totals.bytes += message.source.length;
      totals.attachments += mail.attachments.length;
    }
  } else if (options.mode === 'poll') {
    await client.search({ uid: '1000000:*' }, { uid: true });
  }
  await client.logout();
  totals.polls += 1;
}

const turns = options.mode === 'poll' ? options.polls : accounts.length;
let next = 0;
const cpu = process.cpuUsage();
const begin = process.hrtime.bigint();
await Promise.all(Array.from({ length: options.sessions }, async () => {
  while (next < turns) await run(accounts[next++ % accounts.length]);
}));
const seconds = Number(process.hrtime.bigint() - begin) / 1e9;
const used = process.cpuUsage(cpu);
console.log(JSON.stringify({
  seconds, cpu: (used.user + used.system) / 1e6, rss_mb: process.resourceUsage().maxRSS / 1024, ...totals,
}));
