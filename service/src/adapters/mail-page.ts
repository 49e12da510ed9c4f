// The HTML part of a mail.

const escaped = (text: string): string =>
  text.replace(/[&<>"']/g, found => `&#${found.charCodeAt(0)};`)

export interface MailParts {
  readonly subject: string
  readonly code: string | undefined
  readonly paragraphs: readonly string[]
  readonly who: readonly string[]
  readonly facts: readonly string[]
  readonly notYou: string
  readonly footer: string
}

/** Inline styles only, since mail readers drop style sheets; nothing is fetched and nothing can be clicked. */
export function mailPage (tag: string, { subject, code, paragraphs, who, facts, notYou, footer }: MailParts): string {
  const p = (text: string, style = 'margin:0 0 16px') => `<p style="${style}">${escaped(text)}</p>`
  // What readers show beside the subject: the code first.
  const preview = [...(code === undefined ? [] : [code]), ...paragraphs].join(' · ')
  const small = 'font-size:14px;color:#57606a'
  const digits = 'margin:0 0 16px;font:700 32px/1.25 ui-monospace,Menlo,Consolas,monospace;letter-spacing:6px'
  return `<!doctype html>
<html lang="${escaped(tag)}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="format-detection" content="telephone=no, date=no, address=no, email=no, url=no">
<title>${escaped(subject)}</title>
</head>
<body style="margin:0;padding:24px 12px;background:#f4f6f8">
<div style="display:none;max-height:0;overflow:hidden">${escaped(preview)}</div>
<div style="max-width:480px;margin:0 auto;padding:24px;background:#ffffff;border:1px solid #d0d7de;border-radius:10px;\
font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'PingFang SC','Microsoft YaHei',sans-serif;color:#1b1f24">
${code === undefined ? '' : p(code, digits) + '\n'}${paragraphs.map(text => p(text)).join('\n')}
<div style="margin:0 0 16px;padding:12px 16px;background:#f4f6f8;border-radius:10px;${small}">
${[...who, ...facts].map(text => `<div>${escaped(text)}</div>`).join('\n')}
</div>
${p(notYou)}
${p(footer, `margin:0;padding-top:16px;border-top:1px solid #d0d7de;${small}`)}
</div>
</body>
</html>
`
}
